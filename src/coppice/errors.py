# SPDX-License-Identifier: Apache-2.0
"""Every error that Coppice raises on purpose, with a stable code and an exit code.

::

    CoppiceError
    ├── InputError                        a file or value that a person wrote is wrong         exit 3
    │   ├── SettingsError
    │   ├── DefinitionError
    │   ├── DefinitionSourceError
    │   ├── DocumentError                 an image list or descriptor is malformed
    │   ├── UnreadableFileError           ├── CredentialError
    │   ├── InconsistentListError         └── VersionExistsError
    ├── MachineError                 this machine lacks something                         exit 4
    │   ├── ToolMissingError
    │   ├── ToolFailedError
    │   ├── ToolTimeoutError
    │   ├── CageError                     no cage for programs that read other people's images
    │   ├── ClusterError                  the cluster that builds run on is not there, or does not do
    │   └── KeyTokenError                 a hardware token with a signing key
    ├── TrustError                        a list was fetched and is refused                    exit 5
    │   ├── UnsignedListError             ├── TamperedListError       ├── SignerCountError
    │   ├── SignatureFormError            ├── WeakSignatureError      ├── UntrustedSignerError
    │   ├── SignerExpiredError            ├── SignerUsageError        ├── SignerRevokedError
    │   ├── AuthorityRevokedError         ├── RevocationUnknownError  ├── RevocationExpiredError
    │   ├── RevocationForgedError         ├── NamespaceError          ├── NamespaceUnknownError
    │   ├── WrongSignerError              ├── EndorserMismatchError   ├── EndorserUnknownError
    │   ├── ListIdentifierError           ├── FutureListError         ├── ExpiredListError
    │   ├── OlderListError                ├── ChangedListError        ├── MalformedListError
    │   ├── TrustAnchorError              ├── KeyringError            ├── UnverifiedSourceError
    │   └── BundleError                   a bundle is malformed, or not what it says
    ├── TransferError                     bytes could not be had                               exit 6
    │   ├── UnreachableError              ├── HttpStatusError         ├── TransferCutError
    │   ├── TransferStalledError          ├── TransferTooLargeError   ├── RedirectRefusedError
    │   ├── AddressRefusedError           └── GivenUpError
    ├── ImageError                        the bytes are not what was promised, or are hostile  exit 7
    │   ├── ChecksumMismatchError         ├── SizeMismatchError
    │   ├── ImageRefusedError             refused before any tool opened it
    │   │   ├── NotAnImageError           ├── SeveralFormatsError     ├── DeclaredFormatError
    │   │   ├── OutsideReferenceError     ├── UnsupportedImageError   ├── EncryptedImageError
    │   │   ├── CorruptImageError         ├── OversizedImageError     ├── DecompressionBombError
    │   │   ├── ArchiveError              ├── DiskCountError          ├── OvfError
    │   │   └── ManifestError
    │   ├── ConversionError
    │   └── DeltaError                    a delta does not give the image that was signed
    ├── CloudError                        a cloud refused or failed                            exit 8
    │   ├── CloudUnreachableError         ├── CloudTimeoutError       ├── CloudFaultError
    │   ├── CloudCredentialError          ├── CloudForbiddenError     ├── CloudQuotaError
    │   ├── CloudNameTakenError           ├── CloudRefusedImageError  ├── CloudChecksumError
    │   ├── CloudImageGoneError           ├── CloudImageBrokenError   ├── CloudImageInUseError
    │   ├── CloudAnswerError              an answer is cut, too long, or not what the interface says
    │   ├── MarkerError                   an ownership marker is damaged
    │   ├── AdoptionError                 └── CloudDriverError        a driver's library is not installed
    ├── PlanError                                                                              exit 9
    │   ├── DeletionCapError              ├── StalePlanError
    │   ├── PlanFileError                 ├── RevokedImageError
    │   └── IncompleteSetError
    ├── StorageError                      disk or database                                     exit 10
    │   ├── NoSpaceError                  ├── DatabaseError
    │   └── QuotaError                    the cache's quota does not hold what is needed
    ├── PublicationError                  a place to publish to refused or failed              exit 13
    ├── HookError                         what is told of events refused, failed or hung       exit 14
    │   ├── HookFailedError               └── HookTimeoutError
    ├── BuildError                                                                             exit 11
    │   ├── ProvisionError
    │   ├── AuditError
    │   └── BootTestError
    ├── StateError                        what was named does not exist, or exists already     exit 12
    │   ├── NotFoundError                 └── ExistsError
    ├── PartialFailureError               the run ended; some items failed                     exit 1
    ├── JobFailedError                    a job of the service failed as a whole, or crashed   exit 1
    │   └── JobTimeoutError
    ├── LockedError                       another run holds the lock                           exit 75
    ├── InterruptedRunError               Ctrl-C or a termination signal                       exit 130
    └── UsageError                        the command line itself is wrong                     exit 2

A usage error of the command line exits 2, and nothing else does. An error that is not in this tree is
a defect of Coppice: exit 70. Names end in ``Error``. Foreign exceptions are wrapped where they arise, with ``from``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping


class CoppiceError(Exception):
    """Root of all deliberate errors.

    Args:
        message: What is wrong, and where. One sentence that stands alone.
        details: Facts that help to find the cause (values compared, the tail of a tool's output).
        resolution: What the reader can do about it.
        context: Machine-readable facts for ``--json`` (paths, identifiers); never secrets.
    """

    code: ClassVar[str] = "internal-error"
    exit_code: ClassVar[int] = 70

    def __init__(
        self,
        message: str,
        *,
        details: str | None = None,
        resolution: str | None = None,
        context: Mapping[str, object] | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.details = details
        self.resolution = resolution
        self.context = dict(context or {})

    def __reduce__(self) -> tuple[object, ...]:
        """Keep details and resolution when the error crosses a process boundary."""
        return (_rebuild, (type(self), self.message, self.details, self.resolution, self.context))

    def told_of(self, name: str, **context: object) -> CoppiceError:
        """Return this error as told among those of other things: its message begins with ``name``.

        Args:
            name: Whose error it is (a subscription, a list).
            context: Further facts for ``--json``.
        """
        return _rebuild(
            type(self), f"{name}: {self.message}", self.details, self.resolution, {**self.context, **context}
        )

    def as_dict(self) -> dict[str, object]:
        """Return the shape of this error in the JSON envelope."""
        return {
            "code": self.code,
            "message": self.message,
            "details": self.details,
            "resolution": self.resolution,
            "context": self.context,
        }


def _rebuild(
    kind: type[CoppiceError],
    message: str,
    details: str | None,
    resolution: str | None,
    context: dict[str, object],
) -> CoppiceError:
    return kind(message, details=details, resolution=resolution, context=context)


def all_error_types() -> Iterator[type[CoppiceError]]:
    """Yield every class of the tree, root first (documentation and its test are made from this)."""
    pending: list[type[CoppiceError]] = [CoppiceError]
    while pending:
        kind = pending.pop(0)
        yield kind
        pending.extend(kind.__subclasses__())


class InputError(CoppiceError):
    """Something that a person wrote is wrong."""

    code = "input-invalid"
    exit_code = 3


class SettingsError(InputError):
    """A settings file, variable or option is wrong."""

    code = "settings-invalid"


class DefinitionError(InputError):
    """An appliance definition is wrong."""

    code = "definition-invalid"


class DefinitionSourceError(InputError):
    """A git repository of definitions cannot be had, or is not what was pinned."""

    code = "definition-source"


class DocumentError(InputError):
    """An exchanged document (image list, descriptor) does not have the form that its format demands."""

    code = "document-invalid"


class UnreadableFileError(InputError):
    """A file that was named cannot be read, or is not what it should be (a key, a certificate)."""

    code = "file-unreadable"


class CredentialError(InputError):
    """A credential that is referred to is missing, empty, or not what it should be."""

    code = "credential-unusable"


class InconsistentListError(InputError):
    """An edit would make an image list, or what it carries, contradict itself."""

    code = "list-inconsistent"


class VersionExistsError(InputError):
    """A version was published before with other content; versions never change."""

    code = "version-exists"


class MachineError(CoppiceError):
    """This machine lacks something that is needed."""

    code = "machine"
    exit_code = 4


class ToolMissingError(MachineError):
    """An external program is not installed."""

    code = "tool-missing"


class ToolFailedError(MachineError):
    """An external program ended with an error."""

    code = "tool-failed"


class ToolTimeoutError(MachineError):
    """An external program did not end in time and was stopped."""

    code = "tool-timeout"


class CageError(MachineError):
    """Programs that read other people's images cannot be shut in here as well as the settings ask."""

    code = "cage-unavailable"


class ClusterError(MachineError):
    """The cluster that builds are to run on cannot be reached, does not do, or lost what it was given."""

    code = "cluster-failed"


class KeyTokenError(MachineError):
    """A token that keeps a signing key (PKCS#11) cannot be used."""

    code = "key-token-failed"


class TrustError(CoppiceError):
    """An image list was fetched and is refused; nothing of it is used."""

    code = "list-refused"
    exit_code = 5


class UnsignedListError(TrustError):
    """The document carries no signature."""

    code = "list-unsigned"


class TamperedListError(TrustError):
    """The content does not match the signature."""

    code = "list-tampered"


class SignerCountError(TrustError):
    """The message does not have exactly one signer."""

    code = "list-signer-count"


class SignatureFormError(TrustError):
    """The signature is not a well-formed CMS SignedData of the accepted kind."""

    code = "list-signature-form"


class WeakSignatureError(TrustError):
    """Digest, key or signature algorithm is below the floor."""

    code = "list-signature-weak"


class UntrustedSignerError(TrustError):
    """No path leads from the signer's certificate to a trust anchor."""

    code = "signer-untrusted"


class SignerExpiredError(TrustError):
    """The signer's certificate, or one above it, is not valid today."""

    code = "signer-expired"


class SignerUsageError(TrustError):
    """The signer's certificate may not be used to sign."""

    code = "signer-usage"


class SignerRevokedError(TrustError):
    """The signer's certificate is revoked."""

    code = "signer-revoked"


class AuthorityRevokedError(TrustError):
    """The certificate of an authority above the signer is revoked."""

    code = "authority-revoked"


class RevocationUnknownError(TrustError):
    """The revocation list that is needed is missing."""

    code = "revocation-unknown"


class RevocationExpiredError(TrustError):
    """The revocation list that is needed is not current."""

    code = "revocation-expired"


class RevocationForgedError(TrustError):
    """The revocation list that bears an authority's name is not signed by it."""

    code = "revocation-forged"


class NamespaceError(TrustError):
    """The authority may not certify the signer's name: its namespaces or signing policy say so."""

    code = "signer-namespace"


class NamespaceUnknownError(TrustError):
    """Which names an authority may certify is needed, and nothing says it."""

    code = "signer-namespace-unknown"


class WrongSignerError(TrustError):
    """The signer is trusted, but is not the endorser that the subscription names."""

    code = "signer-not-pinned"


class EndorserMismatchError(TrustError):
    """The endorser written in the list is not the signer."""

    code = "list-endorser-mismatch"


class EndorserUnknownError(TrustError):
    """The subscription trusts no endorser yet, and was not told to trust the first one."""

    code = "endorser-unknown"


class MalformedListError(TrustError):
    """The signature holds, but what was signed is no image list."""

    code = "list-malformed"


class ListIdentifierError(TrustError):
    """The list is another list than the one subscribed to."""

    code = "list-identifier-mismatch"


class FutureListError(TrustError):
    """The list says that it was created in the future."""

    code = "list-from-future"


class ExpiredListError(TrustError):
    """The list's date of expiry has passed."""

    code = "list-expired"


class OlderListError(TrustError):
    """The list is older than one that was verified before."""

    code = "list-older"


class ChangedListError(TrustError):
    """The list has the version of one that was verified before, and other content."""

    code = "list-changed"


class TrustAnchorError(TrustError):
    """There is no usable trust anchor."""

    code = "trust-anchor"


class KeyringError(TrustError):
    """A pinned OpenPGP keyring or public key is missing, unreadable or holds no usable key."""

    code = "keyring"


class UnverifiedSourceError(TrustError):
    """A source offers no signature, and nobody said that it is trusted without one."""

    code = "source-unverified"


class BundleError(TrustError):
    """A bundle is malformed, or what it carries is not what it says."""

    code = "bundle-invalid"


class TransferError(CoppiceError):
    """Bytes could not be had; what was there before stays as it is."""

    code = "transfer-failed"
    exit_code = 6


class UnreachableError(TransferError):
    """The server cannot be reached."""

    code = "source-unreachable"


class HttpStatusError(TransferError):
    """The server answered with an error status."""

    code = "source-status"


class TransferCutError(TransferError):
    """The body ended before its time."""

    code = "transfer-cut"


class TransferStalledError(TransferError):
    """The body came too slowly, or not at all."""

    code = "transfer-stalled"


class TransferTooLargeError(TransferError):
    """The body is longer than the limit."""

    code = "transfer-too-large"


class RedirectRefusedError(TransferError):
    """A redirect leads where none may lead."""

    code = "redirect-refused"


class AddressRefusedError(TransferError):
    """The server's address is one that this site does not connect to."""

    code = "address-refused"


class GivenUpError(TransferError):
    """Fetching this version of an image failed so often that it is not tried again until its list changes."""

    code = "transfer-given-up"


class ImageError(CoppiceError):
    """An image's bytes are not what was promised, or are dangerous."""

    code = "image-invalid"
    exit_code = 7


class ChecksumMismatchError(ImageError):
    """The bytes have another checksum than the signed one."""

    code = "image-checksum"


class SizeMismatchError(ImageError):
    """The bytes are fewer or more than the signed size."""

    code = "image-size"


class ImageRefusedError(ImageError):
    """The image was inspected and is refused before any tool opened it."""

    code = "image-refused"


class NotAnImageError(ImageRefusedError):
    """The file is no disk image at all, or is something that no cloud takes for one."""

    code = "image-none"


class SeveralFormatsError(ImageRefusedError):
    """The file is more than one format at once, so that each program would read another disk."""

    code = "image-several-formats"


class DeclaredFormatError(ImageRefusedError):
    """The file is of another format than its list says, and that is not taken here."""

    code = "image-declared-format"


class OutsideReferenceError(ImageRefusedError):
    """The image takes content from another file: a backing file, a data file, an extent, a parent."""

    code = "image-outside-reference"


class UnsupportedImageError(ImageRefusedError):
    """The image has a version, a kind or a feature of its format that is not taken."""

    code = "image-unsupported"


class EncryptedImageError(ImageRefusedError):
    """The disk is encrypted: no guest could use it."""

    code = "image-encrypted"


class CorruptImageError(ImageRefusedError):
    """The image's header or tables contradict themselves or the file's length, or it was not closed."""

    code = "image-corrupt"


class OversizedImageError(ImageRefusedError):
    """The disk, or what the file unpacks to, is larger than is taken, or far larger than its file makes credible."""

    code = "image-oversized"


class DecompressionBombError(ImageRefusedError):
    """Compressed data goes on beyond the limit, or wants more memory to be read than is given."""

    code = "image-bomb"


class ArchiveError(ImageRefusedError):
    """An archive has members that no appliance has (links, devices, paths that lead elsewhere), or is malformed."""

    code = "archive-refused"


class DiskCountError(ImageRefusedError):
    """An archive has no disk, or several, where one is expected."""

    code = "archive-disk-count"


class OvfError(ImageRefusedError):
    """An OVF descriptor is malformed or dangerous, or does not fit the archive that it is in."""

    code = "ovf-refused"


class ManifestError(ImageRefusedError):
    """The files of an appliance are not those that its manifest names, or the manifest's signature is not right."""

    code = "ovf-manifest"


class ConversionError(ImageError):
    """The image could not be converted."""

    code = "image-conversion"


class DeltaError(ImageError):
    """A delta is malformed, or does not give the image that was signed; the whole file is fetched instead."""

    code = "delta-invalid"


class CloudError(CoppiceError):
    """A cloud refused or failed."""

    code = "cloud-failed"
    exit_code = 8


class CloudUnreachableError(CloudError):
    """A cloud could not be connected to, or the connection was lost."""

    code = "cloud-unreachable"


class CloudTimeoutError(CloudError):
    """A cloud did not answer, or did not get done with an image, within the set time."""

    code = "cloud-timeout"


class CloudFaultError(CloudError):
    """A cloud answered that it failed itself."""

    code = "cloud-fault"


class CloudCredentialError(CloudError):
    """A cloud does not know who asks."""

    code = "cloud-credential"


class CloudForbiddenError(CloudError):
    """A cloud knows who asks, and does not let them do this."""

    code = "cloud-forbidden"


class CloudQuotaError(CloudError):
    """A cloud has no room for an image, or its quota leaves none."""

    code = "cloud-quota"


class CloudNameTakenError(CloudError):
    """Something else in a cloud has the name that an image should have."""

    code = "cloud-name-taken"


class CloudRefusedImageError(CloudError):
    """A cloud does not take an image, for what it is or what is said of it."""

    code = "cloud-refused-image"


class CloudChecksumError(CloudError):
    """A cloud holds other bytes than it was given."""

    code = "cloud-checksum"


class CloudImageGoneError(CloudError):
    """An image is not there any more, or is not this site's."""

    code = "cloud-image-gone"


class CloudImageBrokenError(CloudError):
    """A cloud took an image and could not make it usable."""

    code = "cloud-image-broken"


class CloudImageInUseError(CloudError):
    """Something runs from an image, so that it cannot be changed or removed now."""

    code = "cloud-image-in-use"


class CloudAnswerError(CloudError):
    """A cloud's answer is cut, too long, or not what its interface says."""

    code = "cloud-answer"


class MarkerError(CloudError):
    """The ownership marker of one of this site's images is damaged."""

    code = "cloud-marker"


class AdoptionError(CloudError):
    """An image that another program registered cannot be taken over."""

    code = "cloud-adoption"


class CloudDriverError(CloudError):
    """A cloud's driver lacks something on this machine: the library that speaks to the cloud is not installed."""

    code = "cloud-driver"


class PlanError(CoppiceError):
    """A plan is refused."""

    code = "plan-refused"
    exit_code = 9


class DeletionCapError(PlanError):
    """A list withdraws more of what is registered than the set share."""

    code = "plan-deletion-cap"


class StalePlanError(PlanError):
    """What the plan was made from has changed since."""

    code = "plan-stale"


class PlanFileError(PlanError):
    """A file is no plan, or a plan of another site or version of Coppice."""

    code = "plan-file"


class RevokedImageError(PlanError):
    """An image is listed that an administrator revoked."""

    code = "plan-revoked"


class IncompleteSetError(PlanError):
    """Images of a set are listed that is not whole; none of them is made available before it is."""

    code = "plan-incomplete-set"


class StorageError(CoppiceError):
    """The disk failed."""

    code = "storage-failed"
    exit_code = 10


class NoSpaceError(StorageError):
    """The disk, or a quota, is full."""

    code = "storage-full"


class DatabaseError(StorageError):
    """The database cannot be used."""

    code = "database-failed"


class QuotaError(StorageError):
    """The cache's quota does not hold what is needed, even after all else was removed."""

    code = "cache-quota"


class PublicationError(CoppiceError):
    """A place to publish to refused or failed; what is published there stays whole."""

    code = "publication-failed"
    exit_code = 13


class HookError(CoppiceError):
    """What is told of events refused, failed or took too long."""

    code = "hook"
    exit_code = 14


class HookFailedError(HookError):
    """A hook's program ended with an error, or a webhook's server refused."""

    code = "hook-failed"


class HookTimeoutError(HookError):
    """A hook did not end in time and was ended."""

    code = "hook-timeout"


class BuildError(CoppiceError):
    """An appliance could not be built."""

    code = "build-failed"
    exit_code = 11


class ProvisionError(BuildError):
    """A provisioner failed while an appliance was built; the details end with its log."""

    code = "provision-failed"


class AuditError(BuildError):
    """A built image is not as an image must be."""

    code = "audit-failed"


class BootTestError(BuildError):
    """A built image did not pass its boot test."""

    code = "boot-test-failed"


class StateError(CoppiceError):
    """What was named is not in the state that the command needs."""

    code = "state-invalid"
    exit_code = 12


class NotFoundError(StateError):
    """What was named does not exist."""

    code = "not-found"


class ExistsError(StateError):
    """What was to be created exists already, and differs."""

    code = "exists-already"


class PartialFailureError(CoppiceError):
    """The run ended; some of its items failed, each with an error of its own."""

    code = "partial-failure"
    exit_code = 1


class JobFailedError(CoppiceError):
    """A job of the service failed as a whole, or crashed."""

    code = "job-failed"
    exit_code = 1


class JobTimeoutError(JobFailedError):
    """A job of the service took longer than it may, and was ended."""

    code = "job-timeout"


class LockedError(CoppiceError):
    """Another run holds the lock."""

    code = "locked"
    exit_code = 75


class InterruptedRunError(CoppiceError):
    """The run was interrupted; nothing is half-made, and the next run goes on."""

    code = "interrupted"
    exit_code = 130


class UsageError(CoppiceError):
    """The command line itself is wrong: a command, an option or an argument."""

    code = "usage"
    exit_code = 2
