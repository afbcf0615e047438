"""Objects in S3 and servers that speak its language, through boto3 (`AWS_ENDPOINT_URL` names another server)."""

# `Store` says what each method does.
# ruff: noqa: D102

import logging
import os
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from functools import cache
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

from rayramid.models.errors import UserError
from rayramid.models.stores.local import place
from rayramid.models.stores.store import MissingError, Stat

if TYPE_CHECKING:
    from boto3.s3.transfer import TransferConfig
    from mypy_boto3_s3.client import S3Client

log = logging.getLogger(__name__)

PART_BYTES = 16 * 1024**2
ATTEMPTS = 8
READ_TIMEOUT_S = 60
# botocore's "retries" repeat a request; a body that breaks off while it is read is repeated here.
BACKOFF_S = 0.2


def split(url: str) -> tuple[str, str]:
    """Bucket and key of `s3://bucket/key`."""
    bucket, _, key = url.removeprefix("s3://").partition("/")
    if not bucket:
        raise UserError(f"{url}: an S3 URL needs a bucket, as in s3://bucket/folder")
    return bucket, key


class S3Store:
    """`s3://` URLs. Credentials, region and endpoint come from the usual AWS variables and files."""

    def read(self, url: str) -> bytes:
        return self._get(url, None)

    def read_range(self, url: str, start: int, length: int) -> bytes:
        if length == 0:
            return b""
        return self._get(url, f"bytes={start}-{start + length - 1}")

    def write(self, url: str, data: bytes) -> None:
        bucket, key = split(url)
        with _plain_errors(url):
            if len(data) < 2 * PART_BYTES:
                _client().put_object(Bucket=bucket, Key=key, Body=data)
            else:
                _client().upload_fileobj(BytesIO(data), bucket, key, Config=_transfer())

    def create(self, url: str, data: bytes) -> bool:
        from botocore.exceptions import ClientError

        bucket, key = split(url)
        # When an answer is lost, the repeated request meets the object of the first: this mark tells it is ours.
        author = uuid.uuid4().hex
        for attempt in range(ATTEMPTS):
            with _plain_errors(url):
                try:
                    _client().put_object(
                        Bucket=bucket, Key=key, Body=data, IfNoneMatch="*", Metadata={"author": author}
                    )
                    return True
                except ClientError as error:
                    if _code(error) in ("PreconditionFailed", "412"):
                        head = _client().head_object(Bucket=bucket, Key=key)
                        return head["Metadata"].get("author") == author
                    if _code(error) not in ("ConditionalRequestConflict", "409"):
                        raise
            time.sleep(BACKOFF_S * 2**attempt)
        raise UserError(f"{url}: the server answers every conditional write with a conflict")

    def stat(self, url: str) -> Stat | None:
        bucket, key = split(url)
        if not key:
            return None
        try:
            with _plain_errors(url):
                head = _client().head_object(Bucket=bucket, Key=key)
        except MissingError:
            return None
        return Stat(head["ContentLength"], head["ETag"].strip('"'))

    def list_files(self, url: str) -> Iterator[str]:
        return (file for file, _ in self.list_stats(url))

    def list_stats(self, url: str) -> Iterator[tuple[str, Stat]]:
        bucket, key = split(url)
        prefix = f"{key.rstrip('/')}/" if key else ""
        with _plain_errors(url):
            for page in _client().get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix):
                for entry in page.get("Contents", []):
                    # Consoles make empty objects named like folders.
                    if not entry["Key"].endswith("/"):
                        yield f"s3://{bucket}/{entry['Key']}", Stat(entry["Size"], entry["ETag"].strip('"'))

    def delete(self, url: str) -> None:
        bucket, key = split(url)
        with _plain_errors(url):
            _client().delete_object(Bucket=bucket, Key=key)

    def sweep(self, url: str, older_than_s: float) -> int:
        bucket, key = split(url)
        oldest, left = datetime.now(UTC) - timedelta(seconds=older_than_s), 0
        with _plain_errors(url):
            pages = (
                _client().get_paginator("list_multipart_uploads").paginate(Bucket=bucket, Prefix=f"{key.rstrip('/')}/")
            )
            for upload in (upload for page in pages for upload in page.get("Uploads", [])):
                if upload["Initiated"] <= oldest:
                    _client().abort_multipart_upload(Bucket=bucket, Key=upload["Key"], UploadId=upload["UploadId"])
                    left += 1
        return left

    def upload(self, path: Path, url: str) -> None:
        bucket, key = split(url)
        if not path.is_file():
            raise MissingError(f"{path}: no such file")
        with _plain_errors(url):
            _client().upload_file(str(path), bucket, key, Config=_transfer())

    def download(self, url: str, path: Path) -> None:
        bucket, key = split(url)
        with _plain_errors(url):
            place(path, lambda file: _client().download_fileobj(bucket, key, file, Config=_transfer()))

    def presign(self, url: str, seconds: int, media_type: str, file_name: str, method: str) -> str:
        """A URL that gives the object to whoever has it, for so many seconds; made without asking the server."""
        bucket, key = split(url)
        parameters = {
            "Bucket": bucket,
            "Key": key,
            "ResponseContentType": media_type,
            "ResponseContentDisposition": f'inline; filename="{file_name}"',
        }
        operation = "head_object" if method == "HEAD" else "get_object"
        with _plain_errors(url):
            return _client().generate_presigned_url(operation, Params=parameters, ExpiresIn=seconds)

    def _get(self, url: str, byte_range: str | None) -> bytes:
        bucket, key = split(url)

        def fetch() -> bytes:
            if byte_range is None:
                return _client().get_object(Bucket=bucket, Key=key)["Body"].read()
            return _client().get_object(Bucket=bucket, Key=key, Range=byte_range)["Body"].read()

        with _plain_errors(url):
            return _reading_again(url, fetch)


def _reading_again(url: str, fetch: Callable[[], bytes]) -> bytes:
    from botocore.exceptions import (
        ClientError,
        IncompleteReadError,
        ReadTimeoutError,
        ResponseStreamingError,
    )

    for attempt in range(ATTEMPTS):
        try:
            return fetch()
        except ClientError as error:
            if _code(error) in ("InvalidRange", "416"):
                return b""  # past the end, as with local files
            raise
        except (IncompleteReadError, ReadTimeoutError, ResponseStreamingError) as error:
            if attempt == ATTEMPTS - 1:
                raise
            log.warning("read broke off, reading again", extra={"url": url, "attempt": attempt, "error": str(error)})
            time.sleep(BACKOFF_S * 2**attempt)
    raise AssertionError("the last attempt returns or raises")


def _client() -> "S3Client":
    return _client_of(os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL"), os.getpid())


@cache
def _client_of(endpoint: str | None, process: int) -> "S3Client":
    # One per endpoint and process: a client costs 50 ms, is safe among threads and unsafe across a fork.
    import boto3
    from botocore.config import Config

    return boto3.session.Session().client(
        "s3",
        endpoint_url=endpoint,
        region_name=os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION") or "us-east-1",
        config=Config(
            s3={"addressing_style": "path"},
            # What presigned URLs need everywhere but in the oldest regions.
            signature_version="s3v4",
            retries={"mode": "standard", "max_attempts": ATTEMPTS},
            connect_timeout=10,
            read_timeout=READ_TIMEOUT_S,
            max_pool_connections=32,
        ),
    )


def _transfer() -> "TransferConfig":
    from boto3.s3.transfer import TransferConfig

    return TransferConfig(multipart_threshold=2 * PART_BYTES, multipart_chunksize=PART_BYTES, max_concurrency=4)


def _code(error: object) -> str:
    response = getattr(error, "response", {})
    return str(response.get("Error", {}).get("Code", ""))


@contextmanager
def _plain_errors(url: str) -> Iterator[None]:
    from boto3.exceptions import S3UploadFailedError
    from botocore.exceptions import (
        ClientError,
        EndpointConnectionError,
        HTTPClientError,
        NoCredentialsError,
        ParamValidationError,
    )
    from s3transfer.exceptions import RetriesExceededError

    try:
        yield
    except S3UploadFailedError as error:
        # s3transfer hides the server's answer one level deeper.
        if isinstance(error.__context__, ClientError):
            raise _plain(url, error.__context__) from error
        raise
    except ClientError as error:
        raise _plain(url, error) from error
    except NoCredentialsError as error:
        raise UserError(f"{url}: no AWS credentials; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY") from error
    except EndpointConnectionError as error:
        raise UserError(f"{url}: no S3 server answers at {error.kwargs['endpoint_url']}") from error
    except (HTTPClientError, RetriesExceededError) as error:
        raise UserError(f"{url}: the connection to the S3 server breaks off again and again; try later") from error
    except ParamValidationError as error:
        raise UserError(f"{url}: not a valid bucket and key") from error


def _plain(url: str, error: Exception) -> Exception:
    code = _code(error)
    if code == "NoSuchBucket":
        return MissingError(f"{url}: there is no such bucket")
    if code in ("NoSuchKey", "NotFound", "404"):
        return MissingError(f"{url}: no such object")
    if code in ("AccessDenied", "403", "Forbidden", "InvalidAccessKeyId", "SignatureDoesNotMatch"):
        return UserError(f"{url}: access denied ({code}); check the AWS credentials and the bucket's policy")
    status = getattr(error, "response", {}).get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    if status >= 500:
        return UserError(f"{url}: the S3 server answers {status} again and again ({code}); try later")
    return error
