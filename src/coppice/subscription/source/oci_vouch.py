# SPDX-License-Identifier: Apache-2.0
"""Who vouches for the manifest that a tag names: the pinned keys against the signatures that were gathered."""

from __future__ import annotations

from typing import TYPE_CHECKING

from coppice.errors import CoppiceError, DocumentError, SignatureFormError, TamperedListError, UntrustedSignerError
from coppice.formats.cosign import SIGNATURE_ANNOTATION, is_signed_by, read_bundle, read_claim, read_signature

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from coppice.formats.cosign import Claim, PublicKey, SignedClaim
    from coppice.subscription.source.oci_table import TagRow


def vouch(
    row: TagRow,
    keys: Sequence[PublicKey],
    blob: Callable[[str], bytes],
    *,
    repository: str | None,
) -> PublicKey | None:
    """Return the key that vouches for what a tag names; None: nobody signed it.

    Others may have signed it as well: whoever they are, they do not count. What a pinned key signed must be meant for
    this very manifest.

    Args:
        row: The tag, its digest and what was found as signatures.
        keys: That are pinned.
        blob: Returns a small blob of the message by its digest.
        repository: As what it must have been signed: ``registry/repository``; None: as anything.

    Raises:
        UntrustedSignerError: It is signed, and by none of the pinned keys.
        TamperedListError: A pinned key signed something else, which was put in this place.
        SignatureFormError: What is there as signatures is none.
    """
    problem: CoppiceError | None = None
    if not row.signatures and not row.bundles:
        return None
    shown = f"{row.repository}:{row.tag}"
    for read in _signed(row, blob):
        try:
            signed = read()
            key = next((each for each in keys if is_signed_by(signed, each)), None)
            if key is None:
                problem = problem or UntrustedSignerError(
                    f"{shown} is signed, and by none of the keys that the subscription names",
                    details=f"manifest {row.digest}; pinned: {', '.join(str(each.fingerprint) for each in keys)}",
                    resolution="If the publisher has a new key, and confirms it, add it to the option `cosign_key`.",
                    context={"repository": row.repository, "tag": row.tag},
                )
                continue
            claim = read_claim(signed)
        except DocumentError as malformed:
            problem = problem or SignatureFormError(f"a signature of {shown}: {malformed.message}")
            continue
        if claim is None:
            continue
        if _means(claim, row, repository):
            return key
        problem = _misplaced(shown, row, claim, repository)
    if problem is None:
        # What is there says something else of the image (an attestation), not that it is the publisher's.
        return None
    raise problem


def _signed(row: TagRow, blob: Callable[[str], bytes]) -> Iterator[Callable[[], SignedClaim]]:
    for digest, signature in row.signatures:
        yield lambda digest=digest, signature=signature: read_signature(  # type: ignore[misc]
            blob(digest), {SIGNATURE_ANNOTATION: signature}
        )
    for digest in row.bundles:
        yield lambda digest=digest: read_bundle(blob(digest))  # type: ignore[misc]


def _means(claim: Claim, row: TagRow, repository: str | None) -> bool:
    if row.digest not in claim.digests:
        return False
    if repository is None:
        return True
    name = (claim.reference or "").partition("@")[0]
    head, slash, last = name.rpartition("/")
    return f"{head}{slash}{last.partition(':')[0]}" == repository


def _misplaced(shown: str, row: TagRow, claim: Claim, repository: str | None) -> TamperedListError:
    is_other = row.digest not in claim.digests
    return TamperedListError(
        f"the signature of {shown} is genuine, and of something else"
        if is_other
        else f"{shown} was signed for another repository",
        details=f"manifest {row.digest}; signed: {', '.join(claim.digests)}"
        if is_other
        else f"signed as {(claim.reference or 'nothing in particular')[:200]!a}, needed {repository}",
        resolution="Nothing of this list is used. Ask whoever publishes there.",
        context={"repository": row.repository, "tag": row.tag},
    )
