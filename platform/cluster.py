"""The Ray cluster that a command runs on: an existing one, or a local one for as long as the command runs."""

import logging
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from rayramid.models.errors import UserError
from rayramid.platform.logs import ray_logging

OBJECT_STORE_BYTES = 300 * 1024**2


@dataclass(frozen=True)
class Cluster:
    """A cluster that this process is connected to.

    Attributes:
        address: `host:port` of its control service.
        logs: where a local cluster writes its logs; None for an existing cluster.
    """

    address: str
    logs: Path | None

    @property
    def is_local(self) -> bool:
        """Whether everything that runs on it ends with this process."""
        return self.logs is not None


@contextmanager
def connect(address: str | None = None) -> Iterator[Cluster]:
    """Connects to the Ray at `address` or `RAY_ADDRESS`; starts a local one when neither is given.

    A local cluster has a temp dir of its own, so that several may live on one host, and ends with the context; its
    logs are kept only when the context ends in an error.

    Raises:
        UserError: nothing answers at the address.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_DATA_LOGGING_CONFIG", str(Path(__file__).with_name("ray_data_logging.yaml")))
    # Ray's C++ core warns on the console of every pool of actors that Ray Data makes.
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
    # Says on every start that the token is on, which is as it should be.
    logging.getLogger("ray._private.authentication.authentication_token_setup").setLevel(logging.ERROR)
    # A filter, since importing Serve sets the level of its logger.
    logging.getLogger("ray.serve").addFilter(lambda record: record.levelno >= logging.WARNING)
    import ray

    address = address or os.environ.get("RAY_ADDRESS")
    if address:
        try:
            context = ray.init(address=address, logging_level=logging.WARNING, logging_config=ray_logging())
        except ConnectionError as error:
            raise UserError(f"no Ray cluster answers at {address}: {str(error).splitlines()[0]}") from None
        try:
            yield Cluster(context.address_info["gcs_address"], None)
        finally:
            ray.shutdown()
        return

    temp = Path(tempfile.mkdtemp(prefix="rr-", dir=_short_temp_root()))
    try:
        context = ray.init(
            address="local",
            object_store_memory=OBJECT_STORE_BYTES,
            include_dashboard=False,
            logging_level=logging.WARNING,
            logging_config=ray_logging(),
            log_to_driver=False,
            _temp_dir=str(temp),
        )
        local = context.address_info["gcs_address"]
        # Ray Train looks for its cluster by this variable, and gives up when a host runs two.
        os.environ["RAY_ADDRESS"] = local
        yield Cluster(local, temp / "session_latest" / "logs")
    except BaseException as error:
        _end(temp, keep_logs=isinstance(error, Exception) and not isinstance(error, UserError))
        raise
    else:
        _end(temp, keep_logs=False)


def _end(temp: Path, *, keep_logs: bool) -> None:
    import ray

    ray.shutdown()
    os.environ.pop("RAY_ADDRESS", None)
    if keep_logs:
        logging.getLogger(__name__).error("the logs of the local Ray are kept", extra={"folder": str(temp)})
    else:
        shutil.rmtree(temp, ignore_errors=True)


def _short_temp_root() -> str:
    """Unix sockets live below it, and their paths may have 107 bytes at most."""
    return "/tmp" if os.access("/tmp", os.W_OK) else tempfile.gettempdir()
