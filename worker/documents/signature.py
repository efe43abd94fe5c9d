"""Signs a model's files in the format of OpenSSF Model Signing: an in-toto statement in a Sigstore bundle."""

import os
from collections.abc import Mapping
from pathlib import Path

from worker.documents.key import SigningKey


def sign(name: str, files: Mapping[str, str], key: SigningKey, to: Path) -> None:
    """Write the signature over the files, which are given by name with their sha256.

    The digests were compared when the files were collected, so the files themselves need not be there.
    Anyone can verify it with the public key: `model_signing verify key FOLDER --signature FOLDER/model.sig`.
    """
    # They take 55 MB and half a second, which an idle worker must not need.
    from model_signing import hashing, manifest, signing  # noqa: PLC0415
    from model_signing._hashing.hashing import Digest  # noqa: PLC0415

    form = manifest.SerializationType.from_args(
        {"method": "files", "hash_type": "sha256", "allow_symlinks": False, "ignore_paths": [to.name]}
    )
    listed = manifest.Manifest(
        name,
        [form.new_item(file, Digest("sha256", bytes.fromhex(files[file]))) for file in sorted(files)],
        form,
    )

    class Recorded(hashing.Config):
        """Takes the digests as they are, where the library would read the files."""

        def hash(self, *_: object, **__: object) -> manifest.Manifest:
            return listed

    # The library reads the key from a path. Through a pipe, it is never in a file.
    reading, writing = os.pipe()
    try:
        try:
            os.write(writing, key.pem)
        finally:
            os.close(writing)
        config = signing.Config().set_hashing_config(Recorded())  # type: ignore[no-untyped-call]
        config.use_elliptic_key_signer(private_key=f"/dev/fd/{reading}").sign(to.parent, to)
    finally:
        os.close(reading)
