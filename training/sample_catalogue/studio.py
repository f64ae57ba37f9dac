"""The photographer's studio: camera, lamps and backdrop of one picture."""

from dataclasses import dataclass
from typing import Final, Literal

import numpy as np

from training.sample_catalogue.materials import Colour, Material, linear
from training.sample_catalogue.mesh import Floats, Mesh, rotation

_BACKDROPS: Final = (
    *("ffffff", "ffffff", "ffffff", "fbfaf8", "f6f4f0", "f0f1f2", "e8eaec"),
    *("f5ede1", "e8eff2", "f4e8e5", "eaefe6", "f0ebf1"),
)
# In object heights; a short telephoto lens keeps edges almost parallel.
_DISTANCE: Final = 6.5


@dataclass(frozen=True, kw_only=True)
class Product:
    """One article, ready for its photo.

    Attributes:
        mesh: Standing on y = 0, its front towards +z.
        materials: What the mesh's material indices mean.
        yaw_deg: Turn about the vertical, positive shows its left side.
        pitch_deg: How far above the horizon the camera looks from.
        stands_on: The floor, or the wall that it hangs on.
    """

    mesh: Mesh
    materials: tuple[Material, ...]
    yaw_deg: float
    pitch_deg: float
    stands_on: Literal["floor", "wall"] = "floor"


@dataclass(frozen=True, kw_only=True)
class Lighting:
    """Lamps and backdrop; directions are unit vectors towards the lamp.

    Attributes:
        key: Direction of the main softbox.
        key_strength: Its irradiance.
        fill: Direction of the weak lamp on the other side.
        fill_strength: Its irradiance.
        ambient: Light from all around.
        warmth: Colour of all light.
        softness: Radius of the main softbox, as a tangent.
        backdrop: Paper colour, linear.
        shade: How dark the backdrop gets towards its edge.
        grain: Film grain, standard deviation in 8-bit steps.
        blur: Softness of the lens: the share that each neighbour gives, 0 to 0.2.
    """

    key: Floats
    key_strength: float
    fill: Floats
    fill_strength: float
    ambient: float
    warmth: Colour
    softness: float
    backdrop: Colour
    shade: float
    grain: float
    blur: float


def draw_lighting(rng: np.random.Generator) -> Lighting:
    """A studio set-up: mostly bright and even, each a little different."""
    side = rng.choice([-1.0, 1.0])
    key = _direction(side * rng.uniform(25, 60), rng.uniform(38, 62))
    fill = _direction(-side * rng.uniform(40, 75), rng.uniform(10, 35))
    warm = rng.uniform(-0.035, 0.05)
    return Lighting(
        key=key,
        key_strength=rng.uniform(0.72, 0.95),
        fill=fill,
        fill_strength=rng.uniform(0.08, 0.25),
        ambient=rng.uniform(0.3, 0.42),
        warmth=(1 + warm, 1.0, 1 - warm),
        softness=rng.uniform(0.15, 0.4),
        backdrop=linear(_BACKDROPS[rng.integers(len(_BACKDROPS))]),
        shade=rng.uniform(0.04, 0.16),
        grain=rng.uniform(0.6, 2.0),
        blur=rng.uniform(0.03, 0.12),
    )


def _direction(azimuth_deg: float, elevation_deg: float) -> Floats:
    """Unit vector; azimuth 0 is the camera's side, positive to the right."""
    azimuth, elevation = np.radians(azimuth_deg), np.radians(elevation_deg)
    flat = np.cos(elevation)
    return np.array([flat * np.sin(azimuth), np.sin(elevation), flat * np.cos(azimuth)], np.float32)


@dataclass(frozen=True, kw_only=True)
class Camera:
    """A pinhole camera that looks at `target` and frames the product.

    Attributes:
        turn: [3, 3], world to camera.
        target: [3], world point in the optical axis.
        distance: From the camera to the target.
        zoom: Frame heights per unit at the target's distance.
        centre: [2], where the target's axis falls in the frame, in frame heights.
    """

    turn: Floats
    target: Floats
    distance: float
    zoom: float
    centre: Floats

    @property
    def eye(self) -> Floats:
        """The camera's position [3] in the world."""
        position: Floats = self.target + self.turn.T @ np.array([0, 0, self.distance], np.float32)
        return position

    def project(self, points: Floats) -> tuple[Floats, Floats]:
        """Where world points [V, 3] fall.

        Returns:
            Frame coordinates [V, 2] (x right, y down, the frame is 0 to 1), and
            nearness [V] (1 / distance along the axis).
        """
        seen = (points - self.target) @ self.turn.T
        nearness = 1 / np.maximum(self.distance - seen[:, 2], 0.1)
        flat = seen[:, :2] * np.array([1, -1], np.float32)
        scale: Floats = nearness * self.distance * self.zoom
        return self.centre + flat * scale[:, None], nearness


def frame_product(points: Floats, pitch_deg: float, rng: np.random.Generator) -> Camera:
    """The camera that fills 72 to 84 % of the frame with `points`, almost centred."""
    low, high = points.min(axis=0), points.max(axis=0)
    roll = rotation("z", rng.normal(0, 0.8))
    camera = Camera(
        turn=roll @ rotation("x", pitch_deg),
        target=((low + high) / 2).astype(np.float32),
        distance=_DISTANCE * float(np.max(high - low)),
        zoom=1.0,
        centre=np.zeros(2, np.float32),
    )
    flat, _ = camera.project(points)
    low, high = flat.min(axis=0), flat.max(axis=0)
    zoom = rng.uniform(0.72, 0.84) / float(np.max(high - low))
    jitter = rng.uniform(-0.02, 0.02, 2)
    centre = 0.5 - zoom * (low + high) / 2 + jitter
    return Camera(
        turn=camera.turn,
        target=camera.target,
        distance=camera.distance,
        zoom=zoom,
        centre=centre.astype(np.float32),
    )
