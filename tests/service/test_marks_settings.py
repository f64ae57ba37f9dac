"""What the operator's settings make of the marks."""

import datetime
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
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
from service.provenance.certificates import pem_of
from service.provenance.deadline import Deadline
from service.provenance.layers import Verification
from service.provenance.marker import open_marker, read_development_key
from service.provenance.signing import ManifestSigner
from service.provenance.signing_keys import (
    SigningKey,
    create_development_keys,
    read_signing_key,
)
from service.provenance.verification import Verifier, open_verifier
from service.provenance.xmp import ENHANCED, GENERATED, Mark
from service.settings import load_settings

from .conftest import running_service, wait_for
from .test_marks_http import every_kind, generated, photo, read, verify
from .time_stamps import running_authority

URL = "/v1/images/generations"
NOW = datetime.datetime.now(datetime.UTC)
PRIVATE = (
    serialization.Encoding.PEM,
    serialization.PrivateFormat.PKCS8,
    serialization.NoEncryption(),
)


@dataclass(frozen=True)
class Authority:
    """Whoever issues certificates."""

    key: Any
    certificate: x509.Certificate
    above: tuple["Authority", ...] = ()

    @classmethod
    def create(cls, name: str = "Root Inc", above: "Authority | None" = None) -> "Authority":
        key = ec.generate_private_key(ec.SECP256R1())
        subject = named(O=name)
        issuer = above.certificate.subject if above else subject
        start, end = NOW - datetime.timedelta(2), NOW + datetime.timedelta(99)
        certificate = (
            x509.CertificateBuilder(issuer, subject, key.public_key(), 1, start, end)
            .add_extension(x509.BasicConstraints(True, None), True)
            .add_extension(usage(signs=False), True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), False)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(
                    (above.key if above else key).public_key()
                ),
                False,
            )
            .sign(above.key if above else key, hashes.SHA256())
        )
        return cls(key, certificate, (above, *above.above) if above else ())

    @property
    def pem(self) -> bytes:
        return self.certificate.public_bytes(serialization.Encoding.PEM)


def named(**names: str) -> x509.Name:
    oids = {"O": NameOID.ORGANIZATION_NAME, "CN": NameOID.COMMON_NAME}
    return x509.Name([x509.NameAttribute(oids[kind], name) for kind, name in names.items()])


def usage(signs: bool) -> x509.KeyUsage:
    others = "content_commitment key_encipherment data_encipherment key_agreement crl_sign"
    unused = dict.fromkeys([*others.split(), "encipher_only", "decipher_only"], False)
    return x509.KeyUsage(signs, key_cert_sign=not signs, **unused)


def write_key(
    folder: Path,
    key: Any = None,
    *,
    days: tuple[float, float] = (-1, 30),
    purposes: list[x509.ObjectIdentifier] | None = None,
    signs: bool = True,
    ca: bool = False,
    key_pem: bytes | None = None,
    authority: Authority | None = None,
    subject: x509.Name | None = None,
) -> tuple[Path, Path]:
    """Write a signer's certificate with those above it, and its key; beside it, root.pem."""
    folder.mkdir()
    key = key or ec.generate_private_key(ec.SECP256R1())
    authority = authority or Authority.create()
    start, end = (NOW + datetime.timedelta(days=one) for one in days)
    certificate = (
        x509.CertificateBuilder(
            authority.certificate.subject,
            subject or named(O="Shop Inc"),
            key.public_key(),
            7,
            start,
            end,
        )
        .add_extension(x509.BasicConstraints(ca, None), True)
        .add_extension(usage(signs), True)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(authority.key.public_key()), False
        )
    )
    purposes = [ExtendedKeyUsageOID.EMAIL_PROTECTION] if purposes is None else purposes
    if purposes:
        certificate = certificate.add_extension(x509.ExtendedKeyUsage(purposes), False)
    signed = certificate.sign(authority.key, hashes.SHA256())
    above = (authority, *authority.above)
    (folder / "root.pem").write_bytes(above[-1].pem)
    paths = folder / "certificate.pem", folder / "key.pem"
    leaf = signed.public_bytes(serialization.Encoding.PEM)
    paths[0].write_bytes(leaf + b"".join(one.pem for one in above))
    paths[1].touch(0o600)
    paths[1].write_bytes(key_pem or key.private_bytes(*PRIVATE))
    return paths


def signers(key: SigningKey) -> list[x509.Certificate]:
    return x509.load_pem_x509_certificates(key.chain)[:1]


def verifier_of(key: SigningKey) -> Verifier:
    return Verifier(key.anchors, signers(key))


def c2pa_status(found: Verification) -> str:
    return next(one.status for one in found.layers if one.layer == "c2pa")


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
        ({"subject": named(CN="Shop")}, r"CERTIFICATE: .* names no organization \(O\)"),
        ({"subject": named(O=" ")}, r"CERTIFICATE: .* names no organization \(O\)"),
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


@contextmanager
def silent_authority() -> Iterator[tuple[str, list[socket.socket]]]:
    """A time stamp authority that takes connections and says nothing; gives its URL, and these."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        taken: list[socket.socket] = []

        def take() -> None:
            with suppress(OSError):
                while True:
                    taken.append(server.accept()[0])

        thread = threading.Thread(target=take)
        thread.start()
        yield f"http://127.0.0.1:{server.getsockname()[1]}/", taken
        server.shutdown(socket.SHUT_RDWR)
        thread.join()
        for one in taken:
            one.close()


def test_a_silent_time_stamp_authority_holds_no_worker(
    bento_home: Path,
    styled_export: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(signing, "DEADLINE_SEC", 0.5)
    Registry().register(styled_export)
    with (
        silent_authority() as (url, taken),
        running_service(marks="signed", timestamp_url=url) as client,
    ):
        wait_for(lambda: client.get("/readyz").status_code == 200)
        assert "degraded" not in client.get("/readyz").text
        begun = time.monotonic()
        with ThreadPoolExecutor(12) as threads:
            requests = [threads.submit(client.post, URL, json={"seed": 1}) for _ in range(12)]
            answers = [one.result() for one in requests]
        # Each alone would wait for its deadline; c2pa itself waits for 30 s.
        assert time.monotonic() - begun < 5
        for answer in answers:
            assert (answer.status_code, answer.headers["retry-after"]) == (503, "30")
            assert answer.json()["error"]["code"] == "signing_failed"
        assert 1 <= len(taken) <= load_settings().workers
        ready = client.get("/readyz")
        assert (ready.status_code, "degraded: images can't be signed" in ready.text) == (200, True)
        assert client.get("/v1/models").status_code == 200
    assert "CATALOGAN_TIMESTAMP_URL) took too long" in caplog.text


def test_what_was_given_up_is_tried_again_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    deadline, release = Deadline(0.05, 0.2), threading.Event()
    tried: list[int] = []

    def hang() -> None:
        tried.append(1)
        release.wait(30)

    for _ in range(5):
        with pytest.raises(TimeoutError):
            deadline.run(hang)
    assert len(tried) == 1
    time.sleep(0.25)
    for _ in range(5):
        with pytest.raises(TimeoutError):
            deadline.run(hang)
    assert len(tried) == 2
    time.sleep(0.25)
    assert [deadline.run(lambda: 7) for _ in range(3)] == [7] * 3
    with pytest.raises(KeyError):
        deadline.run(lambda: {}["none"])
    release.set()


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

        def sign_and_verify(folder: Path, seconds: float) -> tuple[bytes, bytes, SigningKey, float]:
            """With a certificate that ends so soon; a stamped image and a bare one."""
            end = time.time() + seconds
            days = (-1, (end - NOW.timestamp()) / 86400)
            key, mark = read_signing_key(*write_key(folder, days=days)), Mark(GENERATED, 1, "s:1")
            both = (ManifestSigner(key, timestamp_url=url), ManifestSigner(key))
            stamped, bare = (one.sign(photo(), "image/png", mark) for one in both)
            knows_both = Verifier(key.anchors + clock_root.read_bytes(), signers(key))
            verdicts = [knows_both.verify(one, None).verdict for one in (stamped, bare)]
            assert verdicts == ["ours", "ours"]
            return stamped, bare, key, end

        begun = time.monotonic()
        sign_and_verify(tmp_path / "trial", 3600)
        seconds = 3 + 5 * (time.monotonic() - begun)  # c2pa's clock can't be set
        stamped, bare, key, end = sign_and_verify(tmp_path / "keys", seconds)
    knows_both = Verifier(key.anchors + clock_root.read_bytes(), signers(key))
    time.sleep(max(0, end - time.time() + 1.1))  # certificates end on seconds
    assert knows_both.verify(stamped, None).verdict == "ours"
    found = knows_both.verify(bare, None)
    assert (found.verdict, found.ours, c2pa_status(found)) == ("expired", False, "expired")
    assert verifier_of(key).verify(stamped, None).verdict != "ours"
    # A change weighs more than an end, and who else's certificate ended is nobody of ours.
    changed = bytearray(bare)
    changed[-30] ^= 1
    found = knows_both.verify(bytes(changed), None)
    assert (found.verdict, c2pa_status(found)) == ("tampered", "tampered")
    found = Verifier(key.anchors, []).verify(bare, None)
    assert (found.verdict, c2pa_status(found)) == ("claimed", "expired")


def test_a_certificate_that_ends_soon_is_told_of(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    certificate, key = write_key(tmp_path / "keys", days=(-1, 20))
    open_marker(load_settings(signing_certificate=certificate, signing_key=key))
    assert "the signing certificate expires on" in caplog.text


@pytest.mark.parametrize("name", ["Shop Inc", "Their Inc"])
def test_a_stranger_under_the_same_authority_is_not_us(tmp_path: Path, name: str) -> None:
    """Even with our name and serial number: only our key is ours."""
    authority = Authority.create()
    ours, theirs = (
        read_signing_key(*write_key(tmp_path / one, authority=authority, subject=named(O=of)))
        for one, of in (("ours", "Shop Inc"), ("theirs", name))
    )
    mark = Mark(GENERATED, 1, "shop:1")
    for key, verdict in ((ours, "ours"), (theirs, "claimed")):
        data = ManifestSigner(key).sign(photo(), "image/png", mark)
        found = verifier_of(ours).verify(data, None)
        assert (found.verdict, c2pa_status(found)) == (verdict, "trusted")
        changed = bytearray(data)
        changed[-30] ^= 1
        found = verifier_of(ours).verify(bytes(changed), None)
        assert found.verdict == {"ours": "tampered", "claimed": "claimed"}[verdict]


def test_our_manifest_beside_a_strangers_makes_nothing_ours(tmp_path: Path) -> None:
    """Whichever of two manifests a reader takes: ours is not of this file."""
    ours, theirs = (read_signing_key(*write_key(tmp_path / one)) for one in ("ours", "theirs"))
    mark = Mark(GENERATED, 1, "shop:1")
    genuine = ManifestSigner(ours).sign(photo(), "image/png", mark)
    other = ManifestSigner(theirs).sign(photo(compress_level=1), "image/png", mark)
    size = int.from_bytes(genuine[33:37], "big") + 12
    assert genuine[37:41] == other[37:41] == b"caBX"
    for data in (other[:33] + genuine[33 : 33 + size] + other[33:], other[:-12] + genuine[33:]):
        assert verifier_of(ours).verify(data, None).verdict != "ours"


def test_a_renewed_certificate_of_the_same_key_is_ours(tmp_path: Path) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    old, new = (read_signing_key(*write_key(tmp_path / one, key)) for one in ("old", "new"))
    data = ManifestSigner(old).sign(photo(), "image/png", Mark(GENERATED, 1, "shop:1"))
    assert verifier_of(new).verify(data, None).verdict == "ours"


def test_keys_that_were_replaced_stay_ours_by_their_certificate(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for name in ("old", "new"):
        create_development_keys(tmp_path / name, "Shop Inc")
    old = ManifestSigner(read_development_key(tmp_path / "old"))
    data = old.sign(photo(), "image/png", Mark(GENERATED, 1, "shop:1"))
    settings = load_settings(
        signing_certificate=tmp_path / "new" / "certificate.pem",
        signing_key=tmp_path / "new" / "key.pem",
    )
    (tmp_path / "old" / "signer.pem").write_bytes(pem_of(signers(old.key)))
    for anchors, verdict, status in (
        (None, "claimed", "untrusted"),
        ("root.pem", "claimed", "trusted"),
        ("certificate.pem", "ours", "trusted"),
        ("signer.pem", "ours", "trusted"),
    ):
        path = None if anchors is None else tmp_path / "old" / anchors
        settings = settings.model_copy(update={"trust_anchors": path})
        found = open_verifier(settings).verify(data, None)
        assert (found.verdict, c2pa_status(found)) == (verdict, status)
    assert "authorities alone" not in caplog.text
    open_verifier(load_settings(data_dir=tmp_path, trust_anchors=tmp_path / "old" / "root.pem"))
    assert "CATALOGAN_TRUST_ANCHORS names authorities alone" in caplog.text


def test_a_chain_that_lacks_an_authority_is_refused_at_the_start(tmp_path: Path) -> None:
    root = Authority.create()
    certificate, key = write_key(tmp_path / "keys", authority=Authority.create("Middle Inc", root))
    leaf, middle, top = x509.load_pem_x509_certificates(certificate.read_bytes())
    anchors = tmp_path / "anchors.pem"
    for listed, known, missing in (
        ((leaf, middle, top), (), None),
        ((leaf, middle), (), None),  # the root is the reader's
        ((leaf,), (middle,), None),
        ((leaf,), (), "certificate 1, O=Middle Inc"),
        ((leaf,), (top,), "certificate 1, O=Middle Inc"),
        ((leaf, top), (), "certificate 1, O=Middle Inc"),
        ((leaf, top, middle), (), "certificate 1, O=Middle Inc"),
        ((leaf, middle, leaf), (), "certificate 2, O=Root Inc"),
    ):
        certificate.write_bytes(pem_of(listed))
        anchors.write_bytes(pem_of(known))
        settings = load_settings(
            signing_certificate=certificate,
            signing_key=key,
            trust_anchors=anchors if known else None,
        )
        if missing is None:
            open_marker(settings)
            continue
        with pytest.raises(SettingsError, match=f"lacks the authority that issued {missing}"):
            open_marker(settings)


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
    found = verifier_of(signer.key).verify(signer.sign(photo(), "image/png", hostile), None)
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
