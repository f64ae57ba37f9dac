"""T-shirts and jumpers as on an invisible mannequin, in front of a wall."""

import numpy as np

from training.sample_catalogue.materials import Colour, Material, any_colour, contrasting, pale
from training.sample_catalogue.mesh import Mesh, join, surface, tube
from training.sample_catalogue.patterns import band
from training.sample_catalogue.products.prints import Layers, all_over, logo
from training.sample_catalogue.studio import Product

_BODY, _SLEEVE, _COLLAR, _LINING = range(4)


def shirt(rng: np.random.Generator) -> Product:
    """Draw one shirt, about 1.3 units tall."""
    long_sleeves = rng.random() < 0.3
    body, collar_path = _torso(rng)
    parts = [body, tube(collar_path, (0.022, 0.03), _COLLAR, across=(0, 1, 0), sides=10)]
    parts.append(_lining(collar_path))
    sleeve = _sleeve(rng, long_sleeves)
    parts += [*sleeve, *[_mirrored(part) for part in sleeve]]
    return Product(
        mesh=join(parts),
        materials=_materials(rng),
        yaw_deg=rng.uniform(-12, 12),
        pitch_deg=rng.uniform(-2, 6),
        stands_on="wall",
    )


def _torso(rng: np.random.Generator) -> tuple[Mesh, np.ndarray]:
    """Body from hem to neckline, and the neckline's path."""
    levels = [0.0, 0.45, 0.95, 1.12, 1.24, 1.3]
    waist = rng.uniform(0.4, 0.47)
    half = [rng.uniform(0.43, 0.5), waist, 0.47, 0.44, 0.26, 0.17]
    deep = [0.15, 0.14, 0.16, 0.13, 0.09, 0.08]
    v = np.concatenate([np.linspace(0, 0.9, 30), np.linspace(0.9, 1.0, 16)[1:]])
    y = v[:, None] * 1.3
    angle = np.linspace(-np.pi, np.pi, 73)[None, :]
    wide = np.interp(y, levels, half)
    thick = np.interp(y, levels, deep)
    front = np.clip(np.cos(angle), 0, 1) ** 2
    dip = rng.uniform(0.1, 0.2) * front * np.clip((y - 1.0) / 0.3, 0, 1) ** 1.5
    x = wide * np.sign(np.sin(angle)) * np.abs(np.sin(angle)) ** 0.8
    z = thick * np.sign(np.cos(angle)) * np.abs(np.cos(angle)) ** 0.8
    z = z + _folds(rng, x, y) * np.cos(angle)
    hem = 0.02 * np.sin(angle * 3 + rng.uniform(0, 6)) * (1 - v[:, None]) ** 4
    grid = np.stack([x, y - dip + hem, z], axis=2)
    return surface(grid, _BODY, closed=True), grid[-1]


def _folds(rng: np.random.Generator, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Depth of soft folds: drapes at the hem and pulls towards the armpits."""
    phase = rng.uniform(0, 6, 4)
    amount = rng.uniform(0.5, 1.3)
    drape = 0.016 * np.sin(x * 14 + phase[0] + np.sin(y * 4 + phase[1])) * np.clip(1 - y, 0, 1)
    pull = np.sin((np.abs(x) * 0.8 - y) * 22 + phase[2]) * np.clip(np.abs(x) * 2.2 - 0.3, 0, 1)
    sag = 0.012 * np.sin(y * 9 + x * 3 + phase[3]) * np.clip(1.1 - y, 0, 1)
    return amount * (drape + 0.012 * pull * np.clip(y * 2 - 0.8, 0, 1) + sag)


def _lining(path: np.ndarray) -> Mesh:
    """The inside of the back as seen through the neckline."""
    middle = path.mean(axis=0) + [0, -0.02, -0.05]
    share = np.linspace(1, 0.02, 6)[:, None, None]
    return surface(middle + (path - middle) * share, _LINING, closed=True)


def _sleeve(rng: np.random.Generator, long_sleeves: bool) -> list[Mesh]:
    """The right sleeve and the dark opening at its end."""
    length = rng.uniform(0.95, 1.1) if long_sleeves else rng.uniform(0.36, 0.48)
    drop = np.radians(rng.uniform(62, 74) if long_sleeves else rng.uniform(38, 56))
    t = np.linspace(0, 1, 22)
    along = np.array([np.cos(drop), -np.sin(drop), 0])
    path = np.array([0.33, 1.06, 0]) + (t * length)[:, None] * along
    cuff = 0.085 if long_sleeves else rng.uniform(0.13, 0.16)
    ripple = 0.006 * np.sin(t * 26 + rng.uniform(0, 6))
    reach = 0.165 + (cuff - 0.165) * t + ripple
    sides = np.stack([0.11 - 0.03 * t, reach], axis=1)
    arm = tube(path, sides, _SLEEVE, sides=28)
    opening = tube(
        path[-1] + np.array([[0, 0, 0], [1e-3, -1e-3, 0]]) * 0.5,
        np.array([sides[-1], [1e-3, 1e-3]]),
        _LINING,
        sides=28,
    )
    return [arm, opening]


def _mirrored(mesh: Mesh) -> Mesh:
    flip = np.array([-1, 1, 1], np.float32)
    return Mesh(
        points=mesh.points * flip,
        normals=mesh.normals * flip,
        uv=mesh.uv,
        faces=np.ascontiguousarray(mesh.faces[:, ::-1]),
        material=mesh.material,
    )


def _materials(rng: np.random.Generator) -> tuple[Material, ...]:
    base: Colour = any_colour(rng) if rng.random() < 0.75 else pale(rng)
    kind = rng.random()
    layers: Layers = ()
    if kind < 0.3:
        layers = all_over(rng, base, 14, 9)
    elif kind < 0.65:
        layers = logo(rng, base, (0.5, 0.64), (rng.uniform(0.06, 0.09), rng.uniform(0.09, 0.14)))
    elif kind < 0.75:
        low = rng.uniform(0.5, 0.65)
        layers = ((band(1, low, low + 0.15), contrasting(rng, base)),)
    sleeve = base if rng.random() < 0.75 else contrasting(rng, base)
    trim: Layers = ((band(1, 0.9, 1.1), contrasting(rng, base)),) if rng.random() < 0.3 else ()
    collar = base if rng.random() < 0.6 else contrasting(rng, base)
    inside = tuple(0.45 * channel for channel in base)
    cloth = {"gloss": 0.05, "roughness": 1.0, "grain": 0.03}
    return (
        Material(colour=base, layers=layers, **cloth),
        Material(colour=sleeve, layers=trim, **cloth),
        Material(colour=collar, **cloth),
        Material(colour=(inside[0], inside[1], inside[2]), **cloth),
    )
