"""``.riva`` and ``.rmir`` archives: a manifest, artefacts, hashes, and optional encryption.

    writer  files -> archive        sealing   passphrase -> keys; artefacts -> sealed artefacts
    reader  archive -> files        manifest  the table of contents, written and parsed
    keys    file[:key], and where keys are kept

An archive is an uncompressed tar. Its first member is ``manifest.yaml``; the artefacts follow in
the manifest's order. The whole format is described in ``docs/archives.md``. NVIDIA's own archives
have the same suffixes and another, unpublished layout: they are recognised and refused by name.
"""

from riva_speech.archive.keys import key_from_environment, split_key
from riva_speech.archive.reader import ArchiveReader, open_archive
from riva_speech.archive.writer import refuse_overwrite, write_archive

__all__ = [
    "ArchiveReader",
    "key_from_environment",
    "open_archive",
    "refuse_overwrite",
    "split_key",
    "write_archive",
]
