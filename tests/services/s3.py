"""An S3 endpoint over real HTTP for tests (moto's server)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import boto3
from moto.server import ThreadedMotoServer

from tests.services.ports import free_port

ACCESS_KEY, SECRET_KEY, BUCKET = "test", "test-secret", "atrium"


@contextmanager
def s3_bucket() -> Iterator[str]:
    """Start the server, make a bucket and give its ``ATRIUM_STORAGE_URL``."""
    port = free_port()
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=port, verbose=False)
    server.start()
    try:
        endpoint = f"http://127.0.0.1:{port}"
        client = boto3.client(
            "s3",
            endpoint_url=endpoint,
            aws_access_key_id=ACCESS_KEY,
            aws_secret_access_key=SECRET_KEY,
            region_name="us-east-1",
        )
        client.create_bucket(Bucket=BUCKET)
        client.close()
        yield f"s3://{BUCKET}/archive?endpoint_url={endpoint}&access_key={ACCESS_KEY}&secret_key={SECRET_KEY}&region_name=us-east-1"
    finally:
        server.stop()
