"""The call that verifies an image."""

from catalogan_client.calls import Call, FileInput
from catalogan_client.methods import AnyTransport, Endpoint, Resource
from catalogan_client.parsing import json_reader
from catalogan_client.results import Verification


def verify(picture: FileInput) -> Call[Verification]:
    """Check whether an image is the service's, and by which marks."""
    read = json_reader(Verification)
    return Call("POST", "/v1/verifications", read, files=[("image", "picture", picture)])


class Verifications(Resource[AnyTransport]):
    """Whether an image is the service's."""

    verify = Endpoint(verify)
