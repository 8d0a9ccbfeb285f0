# SPDX-License-Identifier: Apache-2.0
"""Products of a stream → `ListedImage`: one image a product and item type, of the newest version that has it. Pure."""

from __future__ import annotations

import itertools
import re
from typing import TYPE_CHECKING

from coppice.errors import DocumentError
from coppice.formats.architectures import kernel_name
from coppice.formats.simplestreams import aliases_of, end_of_support, relative_path
from coppice.imagelist.model import ListedImage, UnreadableEntry
from coppice.model.checksum import Checksum
from coppice.model.operating_system import OperatingSystem
from coppice.model.requirements import Requirements
from coppice.model.version import Version
from coppice.subscription.source.gathered import image_identifier_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from coppice.formats.limits import ListLimits
    from coppice.formats.simplestreams import StreamItem, StreamProduct, StreamProducts, StreamVersion
    from coppice.model.identifiers import ImageIdentifier, ListIdentifier
    from coppice.subscription.source.simplestreams_options import StreamsAddress, StreamsOptions

DISK_TYPES = {
    "disk1.img": "qcow2",
    "disk-kvm.img": "qcow2",
    "disk.qcow2": "qcow2",
    "uefi1.img": "qcow2",
    "disk.img": None,
    "img": None,
    "qcow2": "qcow2",
    "raw": "raw",
    "vmdk": "vmdk",
}
"""Item types (``ftype``) that are disks of virtual machines, and the format that publishers mean by them."""
_FORMATS = {".qcow2": "qcow2", ".vmdk": "vmdk", ".vhd": "vhd", ".vhdx": "vhdx", ".vdi": "vdi", ".ova": "ova"}
_STRONG = ("sha512", "sha256")
_WORD = re.compile(r"[A-Za-z0-9_.+-]{1,64}")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_MAX_SHORT = 255


class ImageMaker:
    """Makes the images of one stream.

    Args:
        products: The stream.
        options: What is wanted of it.
        address: Where its files are.
        list_identifier: Of the list that they are for.
        limits: How long texts may be.
    """

    def __init__(
        self,
        products: StreamProducts,
        options: StreamsOptions,
        address: StreamsAddress,
        list_identifier: ListIdentifier,
        limits: ListLimits,
    ) -> None:
        self._products = products
        self._options = options
        self._address = address
        self._list_identifier = list_identifier
        self._limits = limits
        self._types: set[str] = set()

    def make(self) -> tuple[tuple[ListedImage, ...], tuple[UnreadableEntry, ...]]:
        """Return the images, and the entries of which nothing can be said.

        Raises:
            DocumentError: There are more than a list may have.
        """
        images: list[ListedImage] = []
        unreadable: dict[ImageIdentifier, UnreadableEntry] = {}
        # What cannot be read comes last: which types there are is known by then.
        for product in sorted(self._products.products, key=lambda each: _problem_of(each) is not None):
            for found in self._of_product(product):
                if isinstance(found, ListedImage):
                    images.append(found)
                else:
                    unreadable[found.identifier] = found
            if len(images) + len(unreadable) > self._limits.images:
                raise DocumentError(
                    f"the stream has more than {self._limits.images} images that are wanted",
                    resolution="Narrow them with the option filters, or raise lists.maximum_images in the settings.",
                )
        return tuple(images), tuple(unreadable.values())

    def _of_product(self, product: StreamProduct) -> Iterator[ListedImage | UnreadableEntry]:
        problem = _problem_of(product)
        if problem is not None:
            yield from self._unreadable(product, problem)
            return
        newest = _newest_first(product)[: self._options.max_items]
        found: set[str] = set()
        for version in newest:
            wanted: dict[str, list[StreamItem]] = {}
            for item in version.items:
                values = self._products.values(product, version, item)
                kind = self._wanted_type(item, values)
                if kind is not None and kind not in found:
                    wanted.setdefault(kind, []).append(item)
            self._types |= wanted.keys()
            for kind, items in wanted.items():
                found.add(kind)
                yield self._image(product, version, kind, items)

    def _wanted_type(self, item: StreamItem, values: Mapping[str, object]) -> str | None:
        """Return the type of an item that is wanted; None: it is not."""
        said = values.get("ftype")
        kind = said if isinstance(said, str) and _WORD.fullmatch(said) else item.name
        if not self._options.chooses_items and kind not in DISK_TYPES:
            return None
        if all(each.holds(_texts(each.field, values)) for each in self._options.filters):
            return kind
        return None

    def _image(
        self, product: StreamProduct, version: StreamVersion, kind: str, items: list[StreamItem]
    ) -> ListedImage | UnreadableEntry:
        identifier = self._identifier(product, kind)
        if len(items) > 1:
            names = ", ".join(item.name for item in items[:5])
            problem = f"version {version.name} has several items of the type {kind}: {names}"
            return UnreadableEntry(identifier=identifier, problem=problem)
        values = self._products.values(product, version, items[0])
        try:
            return self._listed(identifier, kind, values, _combined(version, kind))
        except DocumentError as problem:
            where = f"{product.name} {version.name} {items[0].name}"
            return UnreadableEntry(identifier=identifier, problem=f"{where}: {problem.message}")

    def _listed(
        self, identifier: ImageIdentifier, kind: str, values: Mapping[str, object], combined: str | None
    ) -> ListedImage:
        path = relative_path(values.get("path"))
        aliases = aliases_of(values.get("aliases"))
        architecture = _short(values, "arch")
        if not _WORD.fullmatch(architecture):
            raise DocumentError("it does not say for which architecture it is")
        name = str(values["product_name"])
        system = _short(values, "os") or "Linux"
        release = _short(values, "release_title") or _short(values, "version") or _short(values, "release")
        title = " ".join(part for part in (system, release, _short(values, "variant"), architecture, kind) if part)
        ends = end_of_support(values.get("support_eol"))
        return ListedImage(
            identifier=identifier,
            version=str(values["version_name"]),
            title=title.encode("utf-8", "replace")[: self._limits.title_bytes].decode("utf-8", "ignore"),
            description=_short(values, "pubname") or f"{name} {values['version_name']}",
            uri=self._address.uri(path),
            size_bytes=_size(values.get("size")),
            checksum=_checksum(values),
            declared_format=_format(kind, path),
            operating_system=OperatingSystem(
                kind="Windows" if system.lower().startswith("windows") else "Linux",
                distribution=system,
                version=_short(values, "version") or _short(values, "release"),
                architecture=kernel_name(architecture),
            ),
            hypervisor="",
            comments="",
            expires=ends if self._options.expire else None,
            requirements=Requirements(),
            groups=(),
            mpuri=None,
            base_mpuri=None,
            extra=_extra(values, aliases, kind, combined),
        )

    def _identifier(self, product: StreamProduct, kind: str) -> ImageIdentifier:
        # A name has no line end: no two pairs have one spelling.
        return image_identifier_of(self._list_identifier, f"{product.name}\n{kind}")

    def _unreadable(self, product: StreamProduct, problem: str) -> Iterator[UnreadableEntry]:
        """Yield an entry for each image that the product may have had: what is known of them stays as it is."""
        for kind in sorted({*(self._options.item_types or DISK_TYPES), *self._types}):
            identifier = self._identifier(product, kind)
            yield UnreadableEntry(identifier=identifier, problem=f"{product.name}: {problem}"[:1000])


def _problem_of(product: StreamProduct) -> str | None:
    """Return why nothing can be said of a product's images; None: something can."""
    if product.problem is not None:
        return product.problem
    try:
        _newest_first(product)
    except ValueError as problem:
        return str(problem)
    return None


def _newest_first(product: StreamProduct) -> list[StreamVersion]:
    """Return a product's versions, the newest first.

    Raises:
        ValueError: Two have one place in the order, or one has none.
    """
    ranked = sorted(((Version(each.name), each) for each in product.versions), key=lambda pair: pair[0], reverse=True)
    for (one, _), (other, _) in itertools.pairwise(ranked):
        if one == other:
            message = f"the versions {one} and {other} have the same place in the order"
            raise ValueError(message)
    return [each for _, each in ranked]


def _texts(field: str, values: Mapping[str, object]) -> tuple[str, ...]:
    """Return what a field says, as texts; a switch in both spellings."""
    value = values.get(field)
    if field == "aliases":
        try:
            return aliases_of(value)
        except DocumentError:
            return ()
    if isinstance(value, bool):
        return (str(value), str(value).lower())
    return (str(value),) if isinstance(value, str | int | float) else ()


def _combined(version: StreamVersion, kind: str) -> str | None:
    """Return the fingerprint by which LXD and Incus know the pair of metadata and disk; None: nobody says it."""
    key = f"combined_{kind.replace('.', '-')}_sha256"
    said = [item.fields[key] for item in version.items if key in item.fields]
    return said[0] if len(said) == 1 and isinstance(said[0], str) and _SHA256.fullmatch(said[0]) else None


def _checksum(values: Mapping[str, object]) -> Checksum:
    for algorithm in _STRONG:
        said = values.get(algorithm)
        if said is not None:
            try:
                return Checksum(algorithm, str(said).lower())
            except ValueError as problem:
                raise DocumentError(str(problem)) from problem
    weak = [each for each in ("sha1", "md5") if values.get(each) is not None]
    raise DocumentError(f"it has no sha256 or sha512{', only ' + weak[0] if weak else ''}")


def _size(value: object) -> int:
    if isinstance(value, str) and value.isascii() and value.isdecimal() and len(value) < 20:  # noqa: PLR2004 - 2⁶³
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int) or not 0 < value < 1 << 63:
        raise DocumentError("its size is missing, or is none")
    return value


def _short(values: Mapping[str, object], key: str) -> str:
    value = values.get(key)
    if value is None:
        return ""
    if not isinstance(value, str) or len(value) > _MAX_SHORT or not value.isprintable():
        raise DocumentError(f"{key} is no short text")
    return value.strip()


def _format(kind: str, path: str) -> str | None:
    by_type = DISK_TYPES.get(kind)
    return by_type or next((found for ending, found in _FORMATS.items() if path.endswith(ending)), None)


def _extra(
    values: Mapping[str, object], aliases: tuple[str, ...], kind: str, combined: str | None
) -> dict[str, object]:
    found: dict[str, object] = {
        "simplestreams:product": values["product_name"],
        "simplestreams:ftype": kind,
        "simplestreams:content_id": values["content_id"],
    }
    if aliases:
        found["simplestreams:aliases"] = list(aliases)
    if combined is not None:
        found["simplestreams:combined_sha256"] = combined
    for key in ("release", "release_codename", "variant", "label", "supported", "support_eol", "requirements"):
        if values.get(key) not in (None, "", {}):
            found[f"simplestreams:{key}"] = values[key]
    return found
