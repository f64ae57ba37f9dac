"""What a verification says: a verdict, and what each layer of marks contributes to it."""

from typing import Annotated, Literal

from pydantic import BaseModel, Field

Verdict = Literal["ours", "tampered", "expired", "derived", "claimed", "unknown"]
Strength = Literal["proof", "evidence", "claim", "none"]


class Claims(BaseModel):
    """What a layer says of the image."""

    source_type: Annotated[str | None, Field(description="IPTC's digital source type.")] = None
    model: Annotated[str | None, Field(description='"name:version"')] = None
    model_hash: str | None = None
    seed: int | None = None
    category: str | None = None
    truncation_psi: float | None = None
    photo_sha256: Annotated[str | None, Field(description="Of the photo behind it.")] = None
    created: Annotated[int | None, Field(description="Unix time.")] = None


class Signer(BaseModel):
    """Who signed, as the certificate names it."""

    organization: str | None
    common_name: str | None


class Layer(BaseModel):
    """One way in which an image may be known again."""

    layer: Annotated[str, Field(description="c2pa, record, watermark, xmp; more may come.")]
    status: Annotated[
        str,
        Field(
            description="c2pa: trusted, untrusted, expired, tampered, unreadable, absent; record: "
            "found, absent, unavailable; watermark: found, absent, unavailable, unreadable; xmp: "
            "found, absent."
        ),
    ]
    strength: Annotated[
        Strength,
        Field(
            description="proof: can't be forged; evidence: only who has the model could; claim: "
            "anybody can write it."
        ),
    ]
    says: str
    claims: Claims | None = None
    signer: Signer | None = None


class Verification(BaseModel):
    """Response of POST /v1/verifications, and of `catalogan verify --json`."""

    object: Literal["verification"] = "verification"
    ours: Annotated[bool, Field(description="Proven, and intact.")]
    verdict: Annotated[
        Verdict,
        Field(
            description="ours: made by this service; tampered: made by it, changed since; expired: "
            "unchanged, but its certificate has ended and no time stamp helps; derived: it "
            "carries a model's watermark, in a file that isn't known; claimed: it says so, "
            "unproven; unknown: nothing says so."
        ),
    ]
    sha256: Annotated[str, Field(description="Of the file.")]
    claims: Annotated[Claims, Field(description="Those of the strongest layer that has any.")]
    layers: Annotated[list[Layer], Field(description="Strongest first.")]
