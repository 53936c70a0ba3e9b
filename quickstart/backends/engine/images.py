"""The images of an engine: looking, pulling, building, and carrying them from one to another."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any, BinaryIO

from quickstart.backends.engine.connection import Connection
from quickstart.backends.engine.values import parse_image, split_name
from quickstart.backends.engine.words import from_words

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from quickstart.backends.engine.values import Image


class Images(Connection):
    """The images of an engine; they go by their names."""

    def image(self, name: str) -> Image | None:
        """Return an image that is there."""
        with self.doing(f"look at the image {name}", missing=True):
            return parse_image(self.api.inspect_image(name), name)
        return None

    def images(self, label: str) -> list[Image]:
        """Return the images that carry a label."""
        with self.doing("list its images"):
            rows = self.api.images(filters={"label": label})
        names = {name for row in rows for name in row.get("RepoTags") or ()}
        named = sorted(names - {"<none>:<none>"})
        return [image for image in map(self.image, named) if image]

    def pull(
        self, name: str, credentials: Mapping[str, str] | None = None
    ) -> Iterator[dict[str, Any]]:
        """Fetch an image, and yield what the engine says of its progress."""
        repository, tag = split_name(name)
        auth = dict(credentials) if credentials else None
        with self.doing(f"pull the image {name}"):
            rows = self.api.pull(repository, tag, stream=True, decode=True, auth_config=auth)
            for row in rows:
                if "error" in row:
                    raise from_words(f"cannot pull the image {name}", str(row["error"]), "")
                yield row

    def build(self, context: bytes, **options: Any) -> Iterator[str]:  # noqa: ANN401 - the SDK's
        """Build an image of a context, and yield the lines of the build's log."""
        with self.doing("build an image"):
            rows = self.api.build(
                fileobj=io.BytesIO(context), custom_context=True, decode=True, rm=True, **options
            )
            for row in rows:
                if "error" in row:
                    raise from_words("the build failed", str(row["error"]).strip(), "")
                yield from str(row.get("stream", "")).splitlines()

    def save_image(self, name: str, sink: BinaryIO) -> None:
        """Write an image, as `docker save` does, to a stream."""
        # An engine packs a whole image before it says a word.
        with self.doing(f"save the image {name}"), self.within(None):
            sink.writelines(self.api.get_image(name))

    def load_image(self, stream: BinaryIO) -> None:
        """Take over an image that was saved."""
        with self.doing("load an image"), self.within(None):
            for row in self.api.load_image(stream):
                if "error" in row:
                    raise from_words("cannot load the image", str(row["error"]), "")
