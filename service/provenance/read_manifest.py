"""Reads a file's C2PA manifest, as a program of its own.

    python read_manifest.py < REQUEST > ANSWER

c2pa's native code sees what strangers upload. Here it may crash or hang, and takes nobody with
it. REQUEST is a line of JSON {"media_type", "anchors", "store", "ingredient"}, anchors being PEM,
then the bytes of the manifest store, as many as "store" says, then the file's. ANSWER is JSON
{"state", "codes", "failures", "manifest"}, or {} where the file holds no manifest, or {"error"}
where it can't be read. Where "ingredient" says what the file is to another, {"archive"} is it with
its manifest, in base64, as c2pa takes it over.
"""

import base64
import io
import json
import resource
import sys

MAX_MEMORY_BYTES = 1_500_000_000
MAX_CPU_SEC = 10


def read(
    data: bytes, media_type: str, anchors: str, store: bytes | None = None
) -> dict[str, object]:
    """Read and check a manifest; offline.

    Args:
        data: The file.
        media_type: What it is, or pretends to be.
        anchors: PEM of the authorities that are trusted.
        store: The file's manifest store, so that it is this one that is checked; else c2pa
            looks for it.
    """
    import c2pa

    settings: dict[str, object] = {
        "version": 1,
        "verify": {"remote_manifest_fetch": False, "ocsp_fetch": False},
    }
    if anchors:
        settings["trust"] = {"trust_anchors": anchors}
    try:
        context = c2pa.Context.from_dict(settings)
        with c2pa.Reader(media_type, io.BytesIO(data), store, context=context) as reader:
            results = (reader.get_validation_results() or {}).get("activeManifest", {})
            return {
                "state": reader.get_validation_state(),
                "codes": [one["code"] for kind in results.values() for one in kind],
                "failures": [one["code"] for one in results.get("failure", [])],
                "manifest": reader.get_active_manifest(),
            }
    except c2pa.C2paError.ManifestNotFound:
        return {}
    except Exception as error:  # also c2pa's own KeyErrors on broken manifests
        return {"error": str(error)[:200]}


def pack(data: bytes, media_type: str, ingredient: str) -> str:
    """Return a file's manifest as an ingredient's archive, without a thumbnail; offline."""
    import c2pa

    settings = {
        "version": 1,
        "verify": {"remote_manifest_fetch": False, "ocsp_fetch": False},
        "builder": {"thumbnail": {"enabled": False}},
    }
    builder = c2pa.Builder("{}", c2pa.Context.from_dict(settings))
    builder.add_ingredient(ingredient, media_type, io.BytesIO(data))
    archive = io.BytesIO()
    builder.write_ingredient_archive(json.loads(ingredient)["label"], archive)
    return base64.b64encode(archive.getvalue()).decode()


def main() -> None:
    """Serve one request."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_AS, (MAX_MEMORY_BYTES, MAX_MEMORY_BYTES))
    resource.setrlimit(resource.RLIMIT_CPU, (MAX_CPU_SEC, MAX_CPU_SEC))
    requested = json.loads(sys.stdin.buffer.readline())
    store = sys.stdin.buffer.read(requested["store"]) or None
    data = sys.stdin.buffer.read()
    media_type, ingredient = requested["media_type"], requested["ingredient"]
    answer = read(data, media_type, requested["anchors"], store)
    if ingredient and "state" in answer:
        answer["archive"] = pack(data, media_type, json.dumps(ingredient))
    json.dump(answer, sys.stdout)


if __name__ == "__main__":
    main()
