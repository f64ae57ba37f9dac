"""Small pictures of every accepted type and form, made anew: what mutations start from."""

import io
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from PIL import ExifTags, Image, ImageCms, PngImagePlugin

from service.provenance.marker import read_development_key
from service.provenance.signing import ManifestSigner
from service.provenance.signing_keys import create_development_keys
from service.provenance.xmp import GENERATED, Mark, xmp_packet
from tests.hostile_files import staged_profile, tiled_tiff

SIDE_PX = 24
XMP = (
    b'<?xpacket begin="" id="W5M0MpCehiHzreSzNTczkc9d"?><x:xmpmeta xmlns:x="adobe:ns:meta/">'
    b'<rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#"><rdf:Description '
    b'xmlns:Iptc4xmpExt="http://iptc.org/std/Iptc4xmpExt/2008-02-29/" '
    b'xmlns:tiff="http://ns.adobe.com/tiff/1.0/" tiff:Orientation="6" '
    b"Iptc4xmpExt:DigitalSourceType="
    b'"http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia"/>'
    b'</rdf:RDF></x:xmpmeta><?xpacket end="r"?>'
)


def picture_seeds() -> dict[str, bytes]:
    """Name -> file; each is a good upload."""
    rng = np.random.default_rng(7)
    colour = Image.fromarray(rng.integers(0, 256, (SIDE_PX, SIDE_PX, 3), dtype=np.uint8))
    smooth = colour.resize((8, 8)).resize((SIDE_PX, SIDE_PX), Image.Resampling.BICUBIC)
    clear = smooth.copy()
    clear.putalpha(Image.linear_gradient("L").resize(smooth.size))
    deep = Image.fromarray(rng.integers(0, 65536, (SIDE_PX, SIDE_PX), dtype=np.uint16))
    turned = Image.Exif()
    turned[ExifTags.Base.Orientation] = 6
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    frames: dict[str, Any] = {"save_all": True, "append_images": [colour, smooth.rotate(90)]}
    return {
        "baseline.jpg": _encode(smooth, "JPEG", exif=turned.tobytes(), icc_profile=profile),
        "progressive.jpg": _encode(smooth, "JPEG", progressive=True, subsampling="4:2:0"),
        "grey.jpg": _encode(smooth.convert("L"), "JPEG", restart_marker_blocks=1),
        "cmyk.jpg": _encode(smooth.convert("CMYK"), "JPEG"),
        "two.mpo": _encode(smooth, "MPO", **frames),
        "colour.png": _encode(smooth, "PNG", icc_profile=profile, exif=turned.tobytes()),
        "clear.png": _encode(clear, "PNG"),
        "grey-clear.png": _encode(clear.convert("LA"), "PNG"),
        "palette.png": _encode(smooth.quantize(16), "PNG", transparency=3),
        "one-bit.png": _encode(smooth.convert("1"), "PNG"),
        "deep.png": _encode(deep, "PNG"),
        "moving.png": _encode(smooth, "PNG", **frames),
        "lossy.webp": _encode(smooth, "WEBP", icc_profile=profile, exif=turned.tobytes()),
        "lossless.webp": _encode(clear, "WEBP", lossless=True),
        "moving.webp": _encode(smooth, "WEBP", **frames),
        "plain.tif": _encode(smooth, "TIFF", exif=turned.tobytes()),
        "lzw.tif": _encode(smooth, "TIFF", compression="tiff_lzw"),
        "deflate.tif": _encode(deep, "TIFF", compression="tiff_adobe_deflate"),
        "packbits.tif": _encode(smooth.convert("CMYK"), "TIFF", compression="packbits"),
        "jpeg.tif": _encode(smooth, "TIFF", compression="jpeg"),
        "fax.tif": _encode(smooth.convert("1"), "TIFF", compression="group4"),
        "float.tif": _encode(deep.convert("F"), "TIFF"),
        "lab.tif": _encode(smooth.convert("LAB"), "TIFF"),
        "big.tif": _encode(smooth, "TIFF", big_tiff=True),
        "still.gif": _encode(smooth.quantize(16), "GIF", transparency=2),
        "moving.gif": _encode(smooth, "GIF", **frames),
        "lossy.avif": _encode(smooth, "AVIF", icc_profile=profile),
        "clear.avif": _encode(clear, "AVIF"),
        "moving.avif": _encode(smooth, "AVIF", **frames),
        "xmp.avif": _encode(smooth, "AVIF", xmp=XMP, exif=turned.tobytes()),
        "xmp.jpg": _encode(smooth, "JPEG", xmp=XMP),
        "xmp.webp": _encode(smooth, "WEBP", xmp=XMP),
        "xmp.png": _encode(smooth, "PNG", pnginfo=_text(zip=False)),
        "packed-xmp.png": _encode(smooth, "PNG", pnginfo=_text(zip=True)),
        "profile.tif": _encode(smooth, "TIFF", icc_profile=staged_profile(4), xmp=XMP),
        "profile.jpg": _encode(smooth, "JPEG", icc_profile=staged_profile(4)),
        "white-is-zero.tif": _encode(deep, "TIFF", tiffinfo={262: 0}),
        "tiles.tif": tiled_tiff(SIDE_PX, 256),
        "colour.bmp": _encode(smooth, "BMP"),
        "palette.bmp": _encode(smooth.quantize(16), "BMP"),
    }


def _text(*, zip: bool) -> PngImagePlugin.PngInfo:
    info = PngImagePlugin.PngInfo()
    info.add_itxt("XML:com.adobe.xmp", XMP.decode(), zip=zip)
    return info


def marked_seeds() -> dict[str, bytes]:
    """Name -> file; each says where it is from, in XMP and in a signed manifest."""
    mark = Mark(GENERATED, 7, "shop:1", "f" * 64, "mugs")
    packet, info = xmp_packet(mark), PngImagePlugin.PngInfo()
    info.add_itxt("XML:com.adobe.xmp", packet.decode(), zip=True)
    image = Image.linear_gradient("L").resize((SIDE_PX, SIDE_PX)).convert("RGB")
    with tempfile.TemporaryDirectory() as folder:
        create_development_keys(Path(folder) / "keys", "Shop Inc")
        signer = ManifestSigner(read_development_key(Path(folder) / "keys"))
    marked = {}
    for kind in ("PNG", "JPEG", "WEBP", "GIF", "TIFF", "AVIF"):
        data = _encode(image, kind, xmp=packet, pnginfo=info, tiffinfo={700: packet})
        marked[f"xmp.{kind.lower()}"] = data
        marked[f"signed.{kind.lower()}"] = signer.sign(data, f"image/{kind.lower()}", mark)
    return marked


def _encode(image: Image.Image, kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()
