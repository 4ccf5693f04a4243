"""onnxruntime-web, which runs ONNX files in browsers: two files of its npm package, of one version that was checked."""

import hashlib
import io
import tarfile

from undiffuse.data.paths import cache_folder
from undiffuse.utils.downloads import fetch

VERSION = "1.30.0"
SHA256 = "d2228df7e4616bc3348bf504ee888f3bec43789a273f0a63f3e68d203ce3bf71"
REGISTRY = "https://registry.npmjs.org/onnxruntime-web/-/"

WASM = "ort/ort-wasm-simd-threaded.wasm"
FILES = {"ort/ort.js": "package/dist/ort.wasm.bundle.min.mjs", WASM: "package/dist/ort-wasm-simd-threaded.wasm"}
"""The page's files by their place in the package. Named .js, since some servers do not know .mjs."""


def runtime_files() -> dict[str, bytes]:
    """The files by their path beside the page, downloaded to the cache if they are not there yet (33 MB).

    Raises:
        FileNotFoundError: they are not there and cannot be downloaded; the message says what to do.
        ValueError: what is there is something else.
    """
    name = f"onnxruntime-web-{VERSION}.tgz"
    package = cache_folder() / name
    fix = (
        f"download it on another machine, or there with npm pack onnxruntime-web@{VERSION}, and put it at "
        f"{package.absolute()} (SHA-256 {SHA256})."
    )
    fetch(REGISTRY + name, package, SHA256, fix)
    content = package.read_bytes()
    if hashlib.sha256(content).hexdigest() != SHA256:
        raise ValueError(f"{package.absolute()} is not {name} as it was published: delete it and export again.")
    with tarfile.open(fileobj=io.BytesIO(content)) as archive:
        opened = {name: archive.extractfile(member) for name, member in FILES.items()}
        return {name: file.read() for name, file in opened.items() if file is not None}
