"""What the operator's settings make of the marks."""

import datetime
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from service.errors import NotReady, SettingsError
from service.model_store.registry import Registry
from service.provenance import signing
from service.provenance.marker import open_marker, read_development_key
from service.provenance.signing import ManifestSigner
from service.provenance.signing_keys import create_development_keys, read_signing_key
from service.provenance.verification import Verifier, open_verifier
from service.provenance.xmp import ENHANCED, GENERATED, Mark
from service.settings import load_settings

from .conftest import running_service
from .test_marks_http import every_kind, generated, photo, read, verify
from .time_stamps import running_authority

NOW = datetime.datetime.now(datetime.UTC)
PRIVATE = (
    serialization.Encoding.PEM,
    serialization.PrivateFormat.PKCS8,
    serialization.NoEncryption(),
)


def write_key(
    folder: Path,
    key: Any = None,
    *,
    days: tuple[float, float] = (-1, 30),
    purposes: list[x509.ObjectIdentifier] | None = None,
    signs: bool = True,
    ca: bool = False,
    key_pem: bytes | None = None,
) -> tuple[Path, Path]:
    """Write a signer's certificate under a root of its own, and its key; beside it, root.pem."""
    folder.mkdir()
    key = key or ec.generate_private_key(ec.SECP256R1())
    root_key = ec.generate_private_key(ec.SECP256R1())
    others = "content_commitment key_encipherment data_encipherment key_agreement crl_sign"
    usage = dict.fromkeys([*others.split(), "encipher_only", "decipher_only"], False)
    names = [
        x509.Name([x509.NameAttribute(NameOID.ORGANIZATION_NAME, one)])
        for one in ("Shop Inc", "Root Inc")
    ]
    start, end = (NOW + datetime.timedelta(days=one) for one in days)
    certificate = (
        x509.CertificateBuilder(names[1], names[0], key.public_key(), 7, start, end)
        .add_extension(x509.BasicConstraints(ca, None), True)
        .add_extension(x509.KeyUsage(signs, key_cert_sign=not signs, **usage), True)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(root_key.public_key()), False
        )
    )
    purposes = [ExtendedKeyUsageOID.EMAIL_PROTECTION] if purposes is None else purposes
    if purposes:
        certificate = certificate.add_extension(x509.ExtendedKeyUsage(purposes), False)
    signed = certificate.sign(root_key, hashes.SHA256())
    public = root_key.public_key()
    root = (
        x509.CertificateBuilder(names[1], names[1], public, 1, start, end + datetime.timedelta(9))
        .add_extension(x509.BasicConstraints(True, None), True)
        .add_extension(x509.KeyUsage(False, key_cert_sign=True, **usage), True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), False)
        .sign(root_key, hashes.SHA256())
    )
    (folder / "root.pem").write_bytes(root.public_bytes(serialization.Encoding.PEM))
    paths = folder / "certificate.pem", folder / "key.pem"
    paths[0].write_bytes(signed.public_bytes(serialization.Encoding.PEM))
    paths[1].touch(0o600)
    paths[1].write_bytes(key_pem or key.private_bytes(*PRIVATE))
    return paths


KEYS: dict[str, Callable[[], Any]] = {
    "es256": lambda: ec.generate_private_key(ec.SECP256R1()),
    "es384": lambda: ec.generate_private_key(ec.SECP384R1()),
    "es512": lambda: ec.generate_private_key(ec.SECP521R1()),
    "ed25519": ed25519.Ed25519PrivateKey.generate,
    "ps256": lambda: rsa.generate_private_key(65537, 2048),
}


@pytest.mark.parametrize("algorithm", KEYS)
def test_keys_of_all_kinds_sign(tmp_path: Path, algorithm: str) -> None:
    key = read_signing_key(*write_key(tmp_path / "keys", KEYS[algorithm]()))
    assert key.algorithm == algorithm
    data = ManifestSigner(key).sign(photo(), "image/png", Mark(GENERATED, 1, "shop:1"))
    assert read(data, "image/png").get_validation_state() == "Valid"
    assert "PRIVATE" not in repr(key)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"days": (-9, -1)}, "CERTIFICATE: certificate 1 of .* expired on"),
        ({"days": (1, 9)}, "CERTIFICATE: certificate 1 of .* is not valid before"),
        ({"purposes": []}, "CERTIFICATE: .* lacks the extended key usage emailProtection"),
        ({"purposes": [ExtendedKeyUsageOID.SERVER_AUTH]}, "CERTIFICATE: .* emailProtection"),
        ({"signs": False}, "CERTIFICATE: .* lacks the key usage digitalSignature"),
        ({"ca": True}, "CERTIFICATE: .* is an authority's"),
        ({"key": ec.generate_private_key(ec.SECP256K1())}, "KEY: must be a key of"),
        ({"key_pem": b"junk"}, "KEY: .* holds no private key in PEM"),
        (
            {"key_pem": ec.generate_private_key(ec.SECP256R1()).private_bytes(*PRIVATE)},
            "KEY: .* is not the key of the first certificate",
        ),
        (
            {
                "key_pem": ec.generate_private_key(ec.SECP256R1()).private_bytes(
                    *PRIVATE[:2], serialization.BestAvailableEncryption(b"secret")
                )
            },
            "KEY: .* is locked by a password",
        ),
    ],
)
def test_what_can_not_sign_is_named_at_the_start(
    tmp_path: Path, options: dict[str, Any], message: str
) -> None:
    certificate, key = write_key(tmp_path / "keys", **options)
    settings = load_settings(signing_certificate=certificate, signing_key=key)
    with pytest.raises(SettingsError, match=f"CATALOGAN_SIGNING_{message}"):
        open_marker(settings)


@pytest.mark.parametrize("mode", [0o644, 0o602, 0o620, 0o604])
def test_a_key_that_others_can_read_is_refused(tmp_path: Path, mode: int) -> None:
    certificate, key = write_key(tmp_path / "keys")
    key.chmod(mode)
    with pytest.raises(SettingsError, match=f"CATALOGAN_SIGNING_KEY: .* {mode:04o}.*chmod 600"):
        read_signing_key(certificate, key)
    key.chmod(0o440)
    read_signing_key(certificate, key)


def test_files_that_are_not_there(tmp_path: Path) -> None:
    certificate, key = write_key(tmp_path / "keys")
    with pytest.raises(SettingsError, match=r"SIGNING_CERTIFICATE: .*No such file"):
        read_signing_key(tmp_path / "none", key)
    with pytest.raises(SettingsError, match=r"SIGNING_KEY: .*No such file"):
        read_signing_key(certificate, tmp_path / "none")
    with pytest.raises(SettingsError, match=r"SIGNING_CERTIFICATE: .* holds no certificates"):
        read_signing_key(key, key)
    with pytest.raises(SettingsError, match=r"CATALOGAN_TRUST_ANCHORS: .* holds no certificates"):
        open_verifier(load_settings(trust_anchors=key))
    with pytest.raises(SettingsError, match="CATALOGAN_SIGNING_KEY together"):
        load_settings(signing_certificate=certificate)


def test_nothing_is_given_out_when_signing_fails(tmp_path: Path) -> None:
    key = read_signing_key(*write_key(tmp_path / "keys"))
    stamped = ManifestSigner(key, timestamp_url="http://127.0.0.1:9/away")
    with pytest.raises(NotReady, match="none leaves unsigned"):
        stamped.sign(photo(), "image/png", Mark(ENHANCED, 1))


def test_a_certificate_that_expires_on_the_way_signs_no_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    signer = ManifestSigner(read_signing_key(*write_key(tmp_path / "keys")))
    signer.sign(photo(), "image/png", Mark(ENHANCED, 1))

    class Later(datetime.datetime):
        @classmethod
        def now(cls, tz: datetime.tzinfo | None = None) -> datetime.datetime:
            return signer.key.expires

    monkeypatch.setattr(signing, "datetime", Later)
    with pytest.raises(NotReady):
        signer.sign(photo(), "image/png", Mark(ENHANCED, 1))


def test_a_time_stamp_proves_when_a_picture_was_signed(tmp_path: Path) -> None:
    with running_authority(tmp_path / "authority") as (url, clock_root):

        def sign_and_verify(folder: Path, seconds: float) -> tuple[bytes, bytes, Path, float]:
            """With a certificate that ends so soon; a stamped image and a bare one."""
            end = time.time() + seconds
            days = (-1, (end - NOW.timestamp()) / 86400)
            key, mark = read_signing_key(*write_key(folder, days=days)), Mark(GENERATED, 1, "s:1")
            signers = (ManifestSigner(key, timestamp_url=url), ManifestSigner(key))
            stamped, bare = (one.sign(photo(), "image/png", mark) for one in signers)
            both = Verifier((folder / "root.pem").read_bytes() + clock_root.read_bytes(), None)
            assert [both.verify(one, None).verdict for one in (stamped, bare)] == ["ours", "ours"]
            return stamped, bare, folder / "root.pem", end

        begun = time.monotonic()
        sign_and_verify(tmp_path / "trial", 3600)
        seconds = 3 + 5 * (time.monotonic() - begun)  # c2pa's clock can't be set
        stamped, bare, signer_root, end = sign_and_verify(tmp_path / "keys", seconds)
    root = signer_root.read_bytes()
    knows_both = Verifier(root + clock_root.read_bytes(), None)
    time.sleep(max(0, end - time.time() + 1.1))  # certificates end on seconds
    assert knows_both.verify(stamped, None).verdict == "ours"
    assert knows_both.verify(bare, None).verdict != "ours"
    assert Verifier(root, None).verify(stamped, None).verdict != "ours"


def test_a_certificate_that_ends_soon_is_told_of(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    certificate, key = write_key(tmp_path / "keys", days=(-1, 20))
    open_marker(load_settings(signing_certificate=certificate, signing_key=key))
    assert "the signing certificate expires on" in caplog.text


def test_another_company_under_a_trusted_root_is_another_company(tmp_path: Path) -> None:
    create_development_keys(tmp_path / "theirs", "Their Inc")
    key = read_development_key(tmp_path / "theirs")
    data = ManifestSigner(key).sign(photo(), "image/png", Mark(GENERATED, 1, "shop:1"))
    for organization, verdict in (
        ("Their Inc", "ours"),
        (None, "ours"),
        ("Our Inc", "claimed"),
    ):
        found = Verifier(key.anchors, organization).verify(data, None)
        assert found.verdict == verdict
        assert {one.layer: one.status for one in found.layers}["c2pa"] == "trusted"


def test_keys_that_were_replaced_stay_ours_by_their_root(tmp_path: Path) -> None:
    for name in ("old", "new"):
        create_development_keys(tmp_path / name, "Shop Inc")
    old = ManifestSigner(read_development_key(tmp_path / "old"))
    data = old.sign(photo(), "image/png", Mark(GENERATED, 1, "shop:1"))
    settings = load_settings(
        signing_certificate=tmp_path / "new" / "certificate.pem",
        signing_key=tmp_path / "new" / "key.pem",
    )
    assert open_verifier(settings).verify(data, None).verdict == "claimed"
    settings = settings.model_copy(update={"trust_anchors": tmp_path / "old" / "root.pem"})
    assert open_verifier(settings).verify(data, None).verdict == "ours"


def test_the_root_is_not_put_into_pictures(tmp_path: Path) -> None:
    create_development_keys(tmp_path / "keys", "Shop Inc")
    key = read_development_key(tmp_path / "keys")
    data = ManifestSigner(key).sign(photo(), "image/png", Mark(GENERATED, 1, "shop:1"))
    leaf, root = x509.load_pem_x509_certificates(
        (tmp_path / "keys" / "certificate.pem").read_bytes()
    )
    assert leaf.public_bytes(serialization.Encoding.DER) in data
    assert root.public_bytes(serialization.Encoding.DER) not in data


def test_text_that_is_none(tmp_path: Path) -> None:
    create_development_keys(tmp_path / "keys", "Shop Inc")
    signer = ManifestSigner(read_development_key(tmp_path / "keys"))
    hostile = Mark(GENERATED, 2**53 - 1, "shop:1", "f" * 64, "<&'\"> \x00\ud800 日本\n", "{}")
    found = Verifier(signer.key.anchors, None).verify(
        signer.sign(photo(), "image/png", hostile), None
    )
    assert found.claims.category == "<&'\"> \x00? 日本\n"
    assert found.claims.seed == 2**53 - 1


def test_where_nothing_can_be_kept_a_key_lasts_as_long_as_the_process(
    bento_home: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (bento_home / "catalogan").write_text("a file where the folder should be")
    marker = open_marker(load_settings(marks="signed"))
    assert marker.signing == "development"
    data = marker.sign(photo(), "image/png", Mark(GENERATED, 1, "shop:1"))
    assert marker.signer is not None
    settings = load_settings()
    assert open_verifier(settings, marker.signer.key).verify(data, None).verdict == "ours"
    assert open_verifier(settings).verify(data, None).verdict == "claimed"
    assert "does not know its own signature" in caplog.text


def test_two_first_starts_at_once_agree_on_a_key(bento_home: Path) -> None:
    with ThreadPoolExecutor(8) as threads:
        markers = list(threads.map(lambda _: open_marker(load_settings(marks="signed")), range(8)))
    assert len({one.signer.key.chain for one in markers if one.signer}) == 1
    assert [path.name for path in (bento_home / "catalogan").iterdir()] == ["signing"]


def test_by_default_a_service_signs_with_a_key_of_its_own(
    bento_home: Path, styled_export: Path, caplog: pytest.LogCaptureFixture
) -> None:
    Registry().register(styled_export)
    with running_service(marks="signed") as client:
        data, media_type = generated(client)
        assert client.get("/v1/models").json()["data"][0]["marks"]["signed_by"] == "development"
        assert verify(client, data)["verdict"] == "ours"
    assert "development key, which nobody else trusts" in caplog.text
    folder = bento_home / "catalogan" / "signing"
    assert (folder / "key.pem").stat().st_mode & 0o777 == 0o600
    assert read(data, media_type, folder / "root.pem").get_validation_state() == "Trusted"
    with running_service(marks="signed") as client:  # the next start has the same key
        assert verify(client, data)["layers"][0]["status"] == "trusted"


@pytest.mark.parametrize(("marks", "xmp"), [("unsigned", True), ("off", False)])
def test_only_the_operator_turns_marks_off(
    bento_home: Path, styled_export: Path, marks: str, xmp: bool, caplog: pytest.LogCaptureFixture
) -> None:
    Registry().register(styled_export)
    with running_service(marks=marks) as client:
        for name, (data, _) in every_kind(client).items():
            assert b"c2pa" not in data, name
            assert (b"DigitalSourceType" in data) is xmp, name
            assert (b"trainedAlgorithmicMedia" in data) is (xmp and name != "augmentation"), name
            assert verify(client, data)["verdict"] == "ours", name  # by its record
        assert client.get("/v1/models").json()["data"][0]["marks"]["signed_by"] == "none"
    assert f"CATALOGAN_MARKS is {marks}" in caplog.text
