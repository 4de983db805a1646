"""A loopback Google Cloud Storage with a bucket "bucket": python gcs_server.py PORT.

gcp-storage-emulator, with the generations that TensorStore relies on and that it leaves out: of what is downloaded, and
as a condition of uploads.
"""

import sys
from http import HTTPStatus

from gcp_storage_emulator.exceptions import NotFound
from gcp_storage_emulator.handlers import objects

_download, _insert = objects.download, objects.insert


def _generation(storage, bucket: str, name: str) -> str:
    try:
        return storage.get_file_obj(bucket, name)["generation"]
    except NotFound:
        return "0"


def download(request, response, storage, *args, **kwargs) -> None:
    generation = _generation(storage, request.params["bucket_name"], request.params["object_id"])
    if request.query.get("ifGenerationNotMatch") == [generation]:
        response.status = HTTPStatus.NOT_MODIFIED if generation != "0" else HTTPStatus.NOT_FOUND
        return
    _download(request, response, storage, *args, **kwargs)
    response["x-goog-generation"] = generation


def insert(request, response, storage, *args, **kwargs) -> None:
    names = request.query.get("name")
    wanted = request.query.get("ifGenerationMatch")
    if names and wanted and wanted != [_generation(storage, request.params["bucket_name"], names[0])]:
        response.status = HTTPStatus.PRECONDITION_FAILED
        return
    _insert(request, response, storage, *args, **kwargs)


if __name__ == "__main__":
    objects.download, objects.insert = download, insert
    from gcp_storage_emulator.server import create_server  # takes the handlers as they are now

    create_server("127.0.0.1", int(sys.argv[1]), True, "bucket").run()
