# SPDX-License-Identifier: Apache-2.0
"""Asking a cloud of OpenStack: who asks, how long an answer may take and be, what is tried again, what an error means.

openstacksdk says who asks and where the services are; the requests are made here, one by one, for its own calls add
properties, drop filters and repeat what must not be repeated. Only this module imports it, and is itself imported when
a cloud is asked first.
"""

from __future__ import annotations

import json
import logging
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import requests
from keystoneauth1 import exceptions as auth_problems
from keystoneauth1.adapter import Adapter
from keystoneauth1.session import Session
from openstack.config import OpenStackConfig
from openstack.connection import Connection
from openstack.exceptions import ConfigException, NotSupported, SDKException, ServiceDiscoveryException

from coppice.cloud.openstack.bounded import BoundedSession, UnusableAnswerError
from coppice.cloud.openstack.failures import (
    Asked,
    error_of_status,
    login_failed,
    no_entry,
    no_service,
    not_understood,
    timed_out,
    unreachable,
)
from coppice.errors import CloudCredentialError, CloudError, CloudFaultError, CloudTimeoutError, CloudUnreachableError
from coppice.formats.certificates import quiet

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from coppice.cloud.openstack.settings import OpenStackSettings

Result = TypeVar("Result")
_MAX_DELAY_SECONDS = 30.0
_ERROR, _TOO_OFTEN = 400, 429
_SERVER_ERROR, _UNAVAILABLE = 500, 503
TRANSIENT = (CloudUnreachableError, CloudTimeoutError, CloudFaultError)
"""What may be otherwise the next time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What a service answered.

    Attributes:
        status: Of HTTP; below 400, or one that was allowed.
        said: The document; None: there was none.
        size_bytes: How long it was.
    """

    status: int
    said: Any = None
    size_bytes: int = 0

    def document(self, asked: Asked) -> dict[str, Any]:
        """Return the object that was answered.

        Raises:
            CloudAnswerError: It is none.
        """
        if not isinstance(self.said, dict):
            raise not_understood(asked, "it is no JSON object")
        return self.said


# What it warns of there is an error a moment later, with what to do.
logging.getLogger("keystoneauth").setLevel(logging.ERROR)


class Api:
    """The services of one region, as one project sees them.

    Args:
        settings: Which.
    """

    def __init__(self, settings: OpenStackSettings) -> None:
        self._settings = settings
        self._lock = threading.Lock()
        self._connection: Connection | None = None
        self._project: str | None = None
        self._adapters: dict[str, Adapter] = {}

    def connection(self) -> Connection:
        """Return the connection, made when it is first needed.

        Raises:
            CloudCredentialError: ``clouds.yaml`` is not there, or says too little.
        """
        with self._lock:
            if self._connection is None:
                self._connection = self._connect()
            return self._connection

    def project(self) -> str:
        """Return the identifier of the credentials' project, to which this site's images belong.

        Raises:
            CloudError: They could not log in, or are for no project.
        """
        if self._project is None:
            asked = Asked(cloud=self._settings.name, method="POST", what="log in")
            found = self.retrying(lambda: self._wrapped(asked, self._project_id))
            if not found:
                raise CloudCredentialError(
                    f"cloud {self._settings.name}: the credentials are for no project",
                    resolution="Images belong to a project: name one beside the credentials.",
                )
            self._project = str(found)
        return self._project

    def _project_id(self) -> str | None:
        found: str | None = self.connection().session.get_project_id()
        return found

    def ask(
        self,
        method: str,
        path: str,
        what: str,
        *,
        service: str = "image",
        params: Mapping[str, str] | None = None,
        body: object = None,
        content_type: str = "application/json",
        allowed: Iterable[int] = (),
        again: bool = True,
    ) -> Answer:
        """Ask once, and again where that may help.

        Args:
            method: Of HTTP.
            path: Below the service's endpoint.
            what: What is being done, for messages.
            service: Whom.
            params: The query.
            body: A document.
            content_type: Of the document.
            allowed: Statuses of 400 and more that are an answer too.
            again: Whether what was asked may be asked twice.

        Raises:
            CloudError: There is no answer, or it is a refusal.
        """
        asked = Asked(cloud=self._settings.name, method=method, what=what)
        data = None if body is None else json.dumps(body).encode()
        headers = {"Accept": "application/json"} | ({} if data is None else {"Content-Type": content_type})

        def attempt() -> Answer:
            response = self._send(asked, service, method, path, params=dict(params or {}), data=data, headers=headers)
            return self._answer(asked, response, allowed)

        return self.retrying(attempt) if again else attempt()

    def put_bytes(self, path: str, what: str, content: Iterable[bytes], allowed: Iterable[int] = ()) -> Answer:
        """Send bytes as a stream, once; when the session ended meanwhile, anew once more.

        Args:
            path: Below Glance's endpoint.
            what: What is being done, for messages.
            content: It has a length, and begins at its beginning each time that it is iterated over.
            allowed: Statuses of 400 and more that are an answer too.

        Raises:
            CloudError: They were not taken.
        """
        asked = Asked(cloud=self._settings.name, method="PUT", what=what)
        headers = {"Content-Type": "application/octet-stream", "Accept": "application/json"}
        # When the last byte was sent, Glance may still be at work with its store.
        timeout = (self._settings.timeout, self._settings.upload_timeout)
        response = self._send(asked, "image", "PUT", path, data=content, headers=headers, timeout=timeout)
        return self._answer(asked, response, allowed)

    def retrying(self, attempt: Callable[[], Result]) -> Result:
        """Return what ``attempt`` returns; what may pass is tried again, later each time.

        Raises:
            CloudError: The last attempt failed too, or it is nothing that passes.
        """
        for number in range(1, self._settings.attempts + 1):
            try:
                return attempt()
            except TRANSIENT:
                if number == self._settings.attempts:
                    raise
                self.pause(number)
        raise AssertionError  # pragma: no cover - there is at least one attempt

    def pause(self, number: int) -> None:
        """Wait before the attempt after that ``number``."""
        time.sleep(min(self._settings.retry_delay * 2 ** (number - 1), _MAX_DELAY_SECONDS))

    def as_project(self, project: str) -> Api:
        """Return the same services, as another project sees them that these credentials are good for.

        Raises:
            CloudError: They are not.
        """
        other = Api(self._settings)
        asked = Asked(cloud=self._settings.name, method="POST", what=f"log in to project {project}")
        connection = self.connection()
        with self._lock, quiet():
            other._connection = self._wrapped(asked, lambda: connection.connect_as_project({"id": project}))
        return other

    def _connect(self) -> Connection:
        settings = self._settings
        asked = Asked(cloud=settings.name, method="GET", what="read clouds.yaml")

        overrides = self._overrides()

        def connect() -> Connection:
            login_url = ""

            def session(**options: Any) -> Session:
                return Session(session=BoundedSession(10 * settings.timeout, login_url), **options)

            config = OpenStackConfig(
                config_files=None if settings.clouds_file is None else [str(settings.clouds_file)],
                load_yaml_config=settings.cloud is not None,
                # What is in the environment is meant for somebody who types.
                load_envvars=False,
                session_constructor=session,  # type: ignore[arg-type]
                app_name="coppice",
            )
            try:
                _check_entry(settings, config)
                region = config.get_one(cloud=settings.cloud, **overrides)
                login_url = str(region.config["auth"].get("auth_url", ""))
                return Connection(config=region, strict_proxies=True)
            except (AttributeError, IndexError, KeyError, TypeError, ValueError) as problem:
                # What the library thinks of a file with other kinds of values than it expects.
                raise login_failed(asked, problem) from problem

        if settings.clouds_file is not None and not settings.clouds_file.is_file():
            raise CloudCredentialError(
                f"cloud {settings.name}: there is no {settings.clouds_file}",
                resolution="Write the file as openstacksdk's documentation has it, or correct `clouds_file`.",
            )
        with quiet():
            return self._wrapped(asked, connect)

    def _overrides(self) -> dict[str, Any]:
        settings = self._settings
        found: dict[str, Any] = {
            "region_name": settings.region,
            "interface": settings.interface,
            "cacert": None if settings.ca_file is None else str(settings.ca_file),
            "api_timeout": settings.timeout,
            "image_api_version": "2",
        }
        login = settings.login
        if login is not None:
            auth = {"auth_url": login.auth_url}
            if login.application_credential_secret is not None:
                found["auth_type"] = "v3applicationcredential"
                auth["application_credential_id"] = login.application_credential_id or ""
                auth["application_credential_secret"] = login.application_credential_secret.read()
            elif login.password is not None:
                found["auth_type"] = "password"
                auth |= {"username": login.username or "", "password": login.password.read()}
                auth |= {"user_domain_name": login.user_domain_name}
                if login.project_id is not None:
                    auth["project_id"] = login.project_id
                else:
                    auth |= {"project_name": login.project_name or ""}
                    auth |= {"project_domain_name": login.project_domain_name}
            found["auth"] = auth
        return {key: value for key, value in found.items() if value is not None}

    def _adapter(self, service: str) -> Adapter:
        """Return what knows where a service is, asked for that when it is first needed."""
        connection = self.connection()
        with self._lock:
            if service not in self._adapters:
                with quiet():
                    self._adapters[service] = getattr(connection, service)
            return self._adapters[service]

    def _send(self, asked: Asked, service: str, method: str, path: str, **options: Any) -> requests.Response:
        def send() -> requests.Response:
            # Not by the library's own kind of adapter: it keeps answers, and warns of itself.
            return Adapter.request(
                self._adapter(service),
                path,
                method,
                raise_exc=False,
                redirect=False,
                log=False,
                connect_retries=0,
                status_code_retries=0,
                **{"timeout": self._settings.timeout, **options},
            )

        return self._wrapped(asked, send)

    @staticmethod
    def _answer(asked: Asked, response: requests.Response, allowed: Iterable[int]) -> Answer:
        status = response.status_code
        if status >= _ERROR and status not in allowed:
            raise error_of_status(asked, status, response.content[:4000].decode("utf-8", errors="replace"))
        if 300 <= status < _ERROR:  # noqa: PLR2004 - redirections
            raise not_understood(asked, f"it is a redirection (HTTP {status})")
        if not response.content or status >= _ERROR:
            return Answer(status=status)
        try:
            return Answer(status=status, said=json.loads(response.content), size_bytes=len(response.content))
        except (ValueError, RecursionError) as problem:
            raise not_understood(asked, "it is no JSON, or not all of it") from problem

    def _wrapped(self, asked: Asked, work: Callable[[], Result]) -> Result:
        """Return what ``work`` returns; the errors of the libraries become Coppice's."""
        try:
            return _understood(asked, work)
        except CloudError:
            raise
        except auth_problems.UnknownConnectionError as problem:
            if isinstance(problem.original, UnusableAnswerError):
                raise not_understood(asked, str(problem.original)) from problem
            raise unreachable(asked, problem) from problem
        except auth_problems.ConnectTimeout as problem:
            raise timed_out(asked) from problem
        except auth_problems.ConnectFailure as problem:
            raise (timed_out(asked) if "timed out" in str(problem) else unreachable(asked, problem)) from problem
        except auth_problems.SSLError as problem:
            raise login_failed(asked, problem) from problem
        except auth_problems.HttpError as problem:
            raise _of_login(asked, problem) from problem
        except ServiceDiscoveryException as problem:
            raise error_of_status(asked, _UNAVAILABLE, str(problem)) from problem
        except (auth_problems.ClientException, ConfigException, SDKException) as problem:
            # The library calls it not supported, too, when nobody answers where the service should be.
            raise (no_service if isinstance(problem, NotSupported) else login_failed)(asked, problem) from problem
        except (requests.RequestException, OSError) as problem:
            raise unreachable(asked, problem) from problem


def _check_entry(settings: OpenStackSettings, config: OpenStackConfig) -> None:
    known = sorted(str(each) for each in config.get_cloud_names())
    if settings.cloud is not None and settings.cloud not in known:
        file = "clouds.yaml" if settings.clouds_file is None else str(settings.clouds_file)
        raise no_entry(settings.name, settings.cloud, file, known)


def _understood(asked: Asked, work: Callable[[], Result]) -> Result:
    try:
        return work()
    except (requests.RequestException, OSError):
        raise
    except (AttributeError, LookupError, RecursionError, TypeError, ValueError) as problem:
        # What the libraries make of an answer of Keystone, or of discovery, that is JSON and nothing else.
        raise not_understood(asked, f"the library fails at it ({type(problem).__name__})") from problem


def _of_login(asked: Asked, problem: auth_problems.HttpError) -> CloudError:
    """Return what a refusal of Keystone means, or of a service that was asked where it is."""
    # What is asked for itself raises none.
    status = problem.http_status or _SERVER_ERROR
    if status < _SERVER_ERROR and status != _TOO_OFTEN:
        return login_failed(asked, problem)
    return error_of_status(asked, status, str(problem))
