"""Pictures of clients are decoded where they can do no harm: in a process with little memory, little time and no files.

What comes out is an upright RGB picture as a plain PNG of our own making, so that nothing else ever reads what a client
has sent. Imports nothing heavy: this is also the program that the process runs.
"""

import asyncio
import io
import os
import resource
import sys

from PIL import Image, ImageOps, UnidentifiedImageError

FORMATS = ("JPEG", "PNG", "WEBP")
REFUSED = 3
DEADLINE_S = 30.0
AT_ONCE = 2
# Of the interpreter and its libraries; a pixel needs 4 bytes to be read, to be turned and to be converted.
BASE_BYTES = 1024**3
PIXEL_BYTES = 16


class PictureError(ValueError):
    """A file that is no picture, or one that is not accepted."""


class PictureDecoder:
    """Decodes pictures, a few at a time.

    Args:
        pixels: that a picture may have.
        deadline_s: after which the process is killed.
    """

    def __init__(self, pixels: int, deadline_s: float = DEADLINE_S) -> None:
        self._pixels = pixels
        self._deadline_s = deadline_s
        self._free = asyncio.Semaphore(AT_ONCE)

    async def decode(self, data: bytes) -> bytes:
        """The picture as a PNG.

        Raises:
            PictureError: what is wrong with it.
        """
        async with self._free:
            child = await asyncio.create_subprocess_exec(
                *(sys.executable, "-P", "-m", __name__, str(self._pixels), str(int(self._deadline_s) + 1)),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                # What a decoder complains of is no news; that it failed is told by its end.
                stderr=asyncio.subprocess.DEVNULL,
                # The parent's own import path, without the current folder.
                env={"PYTHONPATH": os.pathsep.join(folder for folder in sys.path if folder)},
            )
            try:
                async with asyncio.timeout(self._deadline_s):
                    answer, _ = await child.communicate(data)
            except TimeoutError as error:
                raise PictureError(f"it was not decoded within {self._deadline_s:g} s") from error
            finally:
                if child.returncode is None:
                    child.kill()
                    await child.wait()
        if child.returncode == REFUSED:
            raise PictureError(answer.decode())
        if child.returncode:
            raise PictureError("its decoder needs more memory or time than it is given, or dies of it")
        return answer


def _decode(data: bytes, pixels: int) -> bytes:
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as picture:
            if picture.width * picture.height > pixels:
                raise PictureError(f"it has {picture.width}x{picture.height} pixels; {pixels} are allowed")
            if picture.format in ("PNG", "WEBP") and getattr(picture, "is_animated", False):
                raise PictureError("it is animated")
            upright = ImageOps.exif_transpose(picture).convert("RGB")
    except UnidentifiedImageError as error:
        raise PictureError("it is no JPEG, PNG or WebP") from error
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise PictureError(f"it can't be read: {error}") from error
    file = io.BytesIO()
    upright.info.clear()
    upright.save(file, "PNG", compress_level=1)
    return file.getvalue()


def _main(pixels: int, cpu_s: int) -> None:
    """The child: a picture on stdin, a PNG or the reason why there is none on stdout."""
    for what, limit in (
        (resource.RLIMIT_AS, BASE_BYTES + PIXEL_BYTES * pixels),
        (resource.RLIMIT_CPU, cpu_s),
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_CORE, 0),
    ):
        resource.setrlimit(what, (limit, limit))
    Image.MAX_IMAGE_PIXELS = pixels
    try:
        answer, code = _decode(sys.stdin.buffer.read(), pixels), 0
    except PictureError as error:
        answer, code = str(error).encode(), REFUSED
    sys.stdout.buffer.write(answer)
    sys.stdout.buffer.flush()
    sys.exit(code)


if __name__ == "__main__":
    _main(int(sys.argv[1]), int(sys.argv[2]))
