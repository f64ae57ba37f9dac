"""The marks that the operator wants: what goes into each image, and with which key."""

import logging
import tempfile
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final, Literal

from models.manifest import GeneratorManifest
from service.data_folder import writable_data_folder
from service.errors import SettingsError
from service.inference.generation import GeneratorSession
from service.inference.watermarks import Watermarker
from service.provenance.certificates import (
    ANCHORS_SETTING,
    CERTIFICATE_SETTING,
    read_certificates,
)
from service.provenance.signing import ManifestSigner
from service.provenance.signing_keys import (
    CERTIFICATE_FILE,
    KEY_FILE,
    SigningKey,
    find_development_keys,
    read_signing_key,
)
from service.provenance.xmp import Mark, xmp_packet
from service.settings import Settings

logger = logging.getLogger(__name__)

DEVELOPMENT_FOLDER: Final = "signing"
EXPIRY_WARNING: Final = timedelta(days=30)

# Whose key signs: the operator's, the service's own, or none.
Signing = Literal["operator", "development", "none"]
Watermarking = Literal["proven", "on", "off"]


@dataclass(frozen=True)
class Marker:
    """Marks files.

    Attributes:
        xmp: Whether files get an XMP packet.
        signer: Signs them; None = they stay unsigned.
        signing: Whose key it is.
        watermarking: Which models' watermarks are laid over their images.
    """

    xmp: bool
    signer: ManifestSigner | None = None
    signing: Signing = "none"
    watermarking: Watermarking = "off"

    @property
    def failing(self) -> bool:
        """Whether images can't be signed now, so that none is given out."""
        return self.signer is not None and self.signer.failing

    def watermark_of(self, session: GeneratorSession) -> Watermarker | None:
        """The watermark that a model's images get; None = they get none."""
        return session.watermark if self.wants_watermark(session.manifest) else None

    def wants_watermark(self, manifest: GeneratorManifest) -> bool:
        """Whether a model's images get its watermark, where they are large enough."""
        record = manifest.watermark
        if record is None or self.watermarking == "off":
            return False
        return self.watermarking == "on" or record.proven

    def packet(self, mark: Mark) -> bytes | None:
        """The XMP that an encoder is to put into the file."""
        return xmp_packet(mark) if self.xmp else None

    def sign(self, data: bytes, media_type: str, mark: Mark) -> bytes:
        """Sign an encoded image, as the last step of all.

        Raises:
            NotReady: It can't be signed now.
        """
        return data if self.signer is None else self.signer.sign(data, media_type, mark)


def open_marker(settings: Settings) -> Marker:
    """Set up the marks that `settings` want; what is less than all is in the log.

    Raises:
        SettingsError: The key, the certificate or the data folder can't be used.
    """
    if settings.marks == "off":
        logger.warning("CATALOGAN_MARKS is off: images say nowhere that they are synthetic")
        return Marker(xmp=False)
    if settings.marks == "unsigned":
        logger.warning("CATALOGAN_MARKS is unsigned: images carry XMP alone, which can be forged")
        return Marker(xmp=True, watermarking=settings.watermark)
    key = read_configured_key(settings)
    if key is None:
        signer = _signer(_development_key(settings), settings)
        return Marker(True, signer, "development", settings.watermark)
    if key.expires - datetime.now(UTC) < EXPIRY_WARNING:
        logger.warning("the signing certificate expires on %s", f"{key.expires:%Y-%m-%d}")
    return Marker(True, _signer(key, settings), "operator", settings.watermark)


def read_configured_key(settings: Settings) -> SigningKey | None:
    """Read the operator's key; None where none is set.

    Raises:
        SettingsError: It can't be used.
    """
    if settings.signing_certificate is None or settings.signing_key is None:
        return None
    path = settings.trust_anchors
    anchors = [] if path is None else read_certificates(path, ANCHORS_SETTING)
    return read_signing_key(settings.signing_certificate, settings.signing_key, anchors)


def read_development_key(folder: Path) -> SigningKey:
    """Read keys of `create_development_keys`.

    Raises:
        SettingsError: They can't be used.
    """
    try:
        return read_signing_key(folder / CERTIFICATE_FILE, folder / KEY_FILE)
    except SettingsError as error:
        raise SettingsError(
            f"this service's own development key can't be used: {error}; move {folder} away to "
            "get a new one"
        ) from None


def _development_key(settings: Settings) -> SigningKey:
    """The service's own key; where nothing can be kept, a new one each time."""
    folder = writable_data_folder(settings)
    way_out = f"set {CERTIFICATE_SETTING} and CATALOGAN_SIGNING_KEY"
    try:
        if folder is not None:
            key = read_development_key(find_development_keys(folder / DEVELOPMENT_FOLDER))
            logger.warning(
                "images are signed with a development key, which nobody else trusts; %s", way_out
            )
            return key
        with tempfile.TemporaryDirectory(prefix="catalogan-") as name:
            key = read_development_key(find_development_keys(Path(name) / DEVELOPMENT_FOLDER))
    except OSError as error:
        raise SettingsError(
            f"no development key can be created: {error.strerror or error}; {way_out}"
        ) from None
    logger.warning(
        "images are signed with a development key that ends with the service: after that it "
        "does not know its own signature; %s, or CATALOGAN_DATA_DIR",
        way_out,
    )
    return key


def _signer(key: SigningKey, settings: Settings) -> ManifestSigner:
    try:
        return ManifestSigner(key, settings.timestamp_url)
    except ValueError as error:
        raise SettingsError(f"{CERTIFICATE_SETTING}: c2pa refuses it: {error}") from None
