"""Bundles: archives, deployed models and images in one tar, for hosts with no network.

    manifest.json      first: what is in it, each with size and SHA-256
    rmir/ prebuilt/    archives
    models/            the generation that is served
    images/            what `docker save` gives

The same content makes the same bytes, images apart. An import checks all of a bundle before it
changes anything; then images and archives come first and the models, in one step, last.

`export` writes and `taking` takes over; `manifest` is what a bundle says of itself, and `hashing`
the stream that both hold against it.
"""

from quickstart.bundle.export import export
from quickstart.bundle.taking import import_bundle

__all__ = ["export", "import_bundle"]
