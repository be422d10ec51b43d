"""An S3 server on this machine, moto's, which can be made to fail."""

from __future__ import annotations

import threading
import urllib.request
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any

import pytest

Rule = Callable[[str, str], "int | None"]
"""Method and path of a request -> the status of an error to answer with, or None."""

_ERRORS = {403: "AccessDenied", 503: "SlowDown", 500: "InternalError"}


class S3:
    """A server with one bucket, ``lab``.

    Attributes:
        url: where it is.
        requests: method, path and Range of all requests so far.
        rule: may answer in its place.
    """

    def __init__(self, port: int) -> None:
        self.url = f"http://127.0.0.1:{port}"
        self.requests: list[tuple[str, str, str]] = []
        self.rule: Rule = lambda method, path: None
        self.sent = 0

    @cached_property
    def _client(self) -> Any:
        import boto3
        from botocore.config import Config

        return boto3.client(
            "s3",
            endpoint_url=self.url,
            aws_access_key_id="key",
            aws_secret_access_key="secret",
            region_name="us-east-1",
            config=Config(retries={"max_attempts": 1}),
        )

    def client(self) -> Any:
        """The client of Amazon's own library: to make one takes longer than most that it is asked for."""
        return self._client

    def upload(self, folder: Path, place: str) -> None:
        """Put a folder's files there."""
        client = self.client()
        for path in sorted(folder.rglob("*")):
            if path.is_file():
                client.put_object(
                    Bucket="lab", Key=f"{place}/{path.relative_to(folder).as_posix()}", Body=path.read_bytes()
                )

    def files(self, place: str) -> dict[str, bytes]:
        """What is there below a place."""
        client = self.client()
        found = client.list_objects_v2(Bucket="lab", Prefix=f"{place}/").get("Contents", [])
        return {
            one["Key"].removeprefix(f"{place}/"): client.get_object(Bucket="lab", Key=one["Key"])[
                "Body"
            ].read()
            for one in found
        }

    def fetched(self) -> list[str]:
        """The keys that were read so far, each as often as it was."""
        return [path.removeprefix("/lab/") for method, path, _ in self.requests if method == "GET"]


@contextmanager
def s3_server() -> Iterator[S3]:
    """Run a server, and have every client of this process and its children find it."""
    from moto.server import DomainDispatcherApplication, create_backend_app
    from werkzeug.serving import WSGIRequestHandler, make_server

    class Quiet(WSGIRequestHandler):
        def log(self, *_: object, **__: object) -> None:
            pass

    backend = DomainDispatcherApplication(create_backend_app)
    holder: list[S3] = []

    def application(environ: dict[str, Any], start: Callable[..., Any]) -> Iterable[bytes]:
        method, path = environ["REQUEST_METHOD"], environ["PATH_INFO"]
        status = None
        if holder:
            holder[0].requests.append((method, path, environ.get("HTTP_RANGE", "")))
            status = holder[0].rule(method, path)
        if status is None:
            return backend(environ, start)
        stream = environ["wsgi.input"]
        stream.read(int(environ.get("CONTENT_LENGTH") or 0))
        code = _ERRORS.get(status, "InternalError")
        said = f"<Error><Code>{code}</Code><Message>{code}, says the server</Message></Error>"
        body = f"<?xml version='1.0'?>{said}".encode()
        start(f"{status} {code}", [("Content-Type", "application/xml"), ("Content-Length", str(len(body)))])
        return [] if method == "HEAD" else [body]

    server = make_server("127.0.0.1", 0, application, threaded=True, request_handler=Quiet)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    s3 = S3(server.server_port)
    # Its memory is the process's: what a server before had is there still.
    urllib.request.urlopen(urllib.request.Request(f"{s3.url}/moto-api/reset", method="POST")).close()
    s3.client().create_bucket(Bucket="lab")
    holder.append(s3)
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {
            "AWS_ENDPOINT_URL": s3.url,
            "AWS_ACCESS_KEY_ID": "key",
            "AWS_SECRET_ACCESS_KEY": "secret",
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",
        }.items():
            patch.setenv(name, value)
        yield s3
    server.shutdown()
    server.server_close()
    thread.join()
