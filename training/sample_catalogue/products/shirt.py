"""T-shirts, jumpers and button shirts, laid flat and photographed from above."""

from dataclasses import dataclass, replace

import numpy as np

from training.sample_catalogue.materials import Colour, Material, any_colour, contrasting, pale
from training.sample_catalogue.mesh import Floats, Mesh, join, surface, tube
from training.sample_catalogue.patterns import Pattern, band, rectangle
from training.sample_catalogue.products.prints import Layers, all_over, logo
from training.sample_catalogue.studio import Product

_BODY, _SLEEVE, _COLLAR, _LINING = range(4)
_SHOULDER_Y = 1.16


@dataclass(frozen=True)
class _Cut:
    """Measures of one shirt, whose shoulders are 1.3 units above its hem.

    Attributes:
        half: Half the chest.
        hem: Half the hem.
        neck: Half the neckline.
        dip: How far the neckline hangs in front.
        point: 1 = round neck, 0 = V-neck.
        folds: Height of the folds.
        phase: [6], where the folds are.
    """

    half: float
    hem: float
    neck: float
    dip: float
    point: float
    folds: float
    phase: Floats

    def top(self, x: Floats) -> Floats:
        """Upper edge of the front over x: shoulders and neckline."""
        away = np.abs(x)
        shoulder = 1.3 - (away - self.neck) * 0.14 / (self.half - self.neck)
        inside = np.clip(away / self.neck, 0, 1)
        round_neck = np.sqrt(1 - inside**2)
        neckline = 1.3 - self.dip * (self.point * round_neck + (1 - self.point) * (1 - inside))
        return np.where(away < self.neck, neckline, shoulder)

    def relief(self, x: Floats, y: Floats) -> Floats:
        """Height of the folds over the table."""
        p = self.phase
        hang = np.sin(x * 9 + 1.3 * np.sin(y * 3 + p[0]) + p[1]) * np.clip(1.1 - y, 0.1, 1)
        pull = np.sin((np.abs(x) * 1.1 + y) * 15 + p[2]) * np.clip(np.abs(x) * 2.4 - 0.3, 0, 1)
        cross = np.sin(y * 7 + np.sin(x * 6 + p[3]) * 1.6 + p[4])
        fine = np.sin(x * 23 + y * 6 + p[5]) * np.sin(y * 11 + x * 8 + p[3])
        height: Floats = self.folds * (hang + 0.7 * pull + 0.55 * cross + 0.35 * fine)
        return height


def shirt(rng: np.random.Generator) -> Product:
    """Draw one shirt, about 1.3 units tall."""
    chest = rng.uniform(0.42, 0.5)
    cut = _Cut(
        half=chest,
        hem=chest * rng.uniform(0.96, 1.08),
        neck=rng.uniform(0.16, 0.2),
        dip=rng.uniform(0.1, 0.17),
        point=float(rng.random() < 0.75),
        folds=rng.uniform(0.008, 0.017),
        phase=rng.uniform(0, 6.28, 6),
    )
    right = _sleeve(rng, cut)
    parts = [_body(cut), *_neck(cut), right, _mirrored(right)]
    return Product(
        mesh=join(parts),
        materials=_materials(rng),
        yaw_deg=rng.uniform(-7, 7),
        pitch_deg=rng.uniform(-4, 4),
        stands_on="wall",
    )


def _body(cut: _Cut) -> Mesh:
    across = np.sin(np.linspace(-np.pi / 2, np.pi / 2, 49))[None, :]
    t = np.linspace(0, 1, 44)[:, None]
    wide = np.interp(t, [0, 0.3, 0.65, 1], [cut.hem, cut.half * 0.97, cut.half, cut.half * 0.96])
    x = wide * across
    y = t * cut.top(x) + 0.012 * np.sin(across * 3 + cut.phase[0]) * (1 - t) ** 3
    z = 0.07 * (1 - across**4) * np.clip(t * 30, 0.3, 1) + cut.relief(x, y)
    mesh = surface(np.stack([x, y, z], axis=2), _BODY)
    # Prints are set straight on the chest, not along the curved neckline.
    u, v = mesh.points[:, 0] / (2 * cut.half) + 0.5, mesh.points[:, 1] / 1.3
    return replace(mesh, uv=np.stack([u, v], axis=1))


def _neck(cut: _Cut) -> list[Mesh]:
    """The inside of the back in the neckline, and the ribbing around it."""
    x = np.sin(np.linspace(-np.pi / 2, np.pi / 2, 25)) * cut.neck
    back = 1.315 - 0.035 * np.sqrt(np.clip(1 - (x / cut.neck) ** 2, 0, 1))
    front = cut.top(x * 0.999)
    share = np.linspace(0, 1, 6)[:, None]
    inside = np.stack(np.broadcast_arrays(x, front + (back - front) * share, 0.01), axis=2)
    lift = np.full_like(x, 0.07) + cut.relief(x, front)
    rib = (0.012, 0.022)
    ahead = tube(np.stack([x, front, lift], 1), rib, _COLLAR, sides=10)
    behind = tube(np.stack([x, back, lift * 0.3], 1), rib, _COLLAR, sides=10)
    return [surface(inside, _LINING), ahead, behind]


def _sleeve(rng: np.random.Generator, cut: _Cut) -> Mesh:
    """The sleeve on the right of the picture, tucked under the body."""
    long_sleeves = rng.random() < 0.35
    length = rng.uniform(0.9, 1.02) if long_sleeves else rng.uniform(0.3, 0.42)
    drop = np.radians(rng.uniform(62, 72) if long_sleeves else rng.uniform(36, 54))
    cuff = 0.17 if long_sleeves else rng.uniform(0.26, 0.32)
    along = np.array([np.cos(drop), -np.sin(drop)])
    over = np.array([np.sin(drop), np.cos(drop)])
    shoulder = np.array([cut.half * 0.93, _SHOULDER_Y + 0.005])
    armpit = np.array([cut.half * 0.88, 0.78])
    end = shoulder + along * length
    t = np.linspace(0, 1, 26)[None, :, None]
    s = np.linspace(0, 1, 15)[:, None, None]
    bulge = 0.03 * np.sin(np.pi * np.minimum(t, 0.5)) * over
    low = armpit + (end - over * cuff - armpit) * t
    high = shoulder + (end - shoulder) * t + bulge
    flat = low + (high - low) * s
    x, y = flat[:, :, 0], flat[:, :, 1]
    rim = 1 - np.abs(2 * s[:, :, 0] - 1) ** 4
    z = 0.045 * rim * np.ones_like(x) + 0.9 * cut.relief(x * 1.3, y * 1.2) - 0.01
    return surface(np.stack([x, y, z], axis=2), _SLEEVE)


def _mirrored(mesh: Mesh) -> Mesh:
    flip = np.array([-1, 1, 1], np.float32)
    return Mesh(
        points=mesh.points * flip,
        normals=mesh.normals * flip,
        uv=mesh.uv,
        faces=np.ascontiguousarray(mesh.faces[:, ::-1]),
        material=mesh.material,
    )


def _buttons(count: int) -> Pattern:
    """A row of buttons down the middle of the front."""

    def weights(uv: Floats, local: Floats) -> Floats:
        y = (uv[:, 1] * count % 1 - 0.5) / count * 1.3
        ink: Floats = np.clip((0.014 - np.hypot(local[:, 0], y)) / 0.006, 0, 1)
        return ink

    return weights


def _print(rng: np.random.Generator, base: Colour) -> Layers:
    seam: Layers = ((band(1, 0.022, 0.03), _darker(base, 0.7)),)
    kind = rng.random()
    if kind < 0.3:
        return all_over(rng, base, 8, 9) + seam
    if kind < 0.6:
        size = rng.uniform(0.14, 0.22)
        return (*logo(rng, base, (0.5, rng.uniform(0.58, 0.66)), (size, size * 0.8)), *seam)
    if kind < 0.72:
        low = rng.uniform(0.5, 0.62)
        return ((band(1, low, low + rng.uniform(0.08, 0.2)), contrasting(rng, base)), *seam)
    if kind < 0.84:
        placket = (rectangle((0.5, 0.5), (0.035, 0.6)), _darker(base, 0.88))
        return (placket, (_buttons(7), contrasting(rng, base)), *seam)
    return seam


def _darker(colour: Colour, share: float) -> Colour:
    return colour[0] * share, colour[1] * share, colour[2] * share


def _materials(rng: np.random.Generator) -> tuple[Material, ...]:
    base = any_colour(rng) if rng.random() < 0.75 else pale(rng)
    sleeve = base if rng.random() < 0.8 else contrasting(rng, base)
    cuff = contrasting(rng, base) if rng.random() < 0.25 else _darker(sleeve, 0.8)
    collar = _darker(base, 0.9) if rng.random() < 0.65 else contrasting(rng, base)
    hem: Layers = ((band(0, 0.93, 1.1), cuff),)
    return (
        Material(colour=base, layers=_print(rng, base), gloss=0),
        Material(colour=sleeve, layers=hem, gloss=0),
        Material(colour=collar, gloss=0),
        Material(colour=_darker(base, 0.6), gloss=0),
    )
