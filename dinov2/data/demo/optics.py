"""From stain concentrations to a scanned picture, by the laws that a bright-field scanner obeys.

    concentrations (haematoxylin, eosin)      drawn by the painters
      -> optical density per colour           stain vectors, section thickness
      -> transmitted light I = I0 * 10^-OD    Beer-Lambert
      -> scanned picture                      lamp, point spread, sensor, tone curve, 8 bits

What differs between slides is one `SlideLook`: dyes, strengths, thickness and scanner. It varies as
much as between laboratories, so that a tile's colour says more about its slide than its tissue.

Sources: stain vectors from Ruifrok and Johnston 2001, "Quantification of histochemical staining by
color deconvolution", and Macenko et al. 2009, "A method for normalizing histology slides". Both
measured optical density on 8-bit display values, so light is on that scale here too, and a gamma
of 1 is an ordinary scanner.
"""

from dataclasses import dataclass

import cv2
import numpy as np

from dinov2.data.demo.fields import blur, white_noise

RUIFROK_HAEMATOXYLIN = (0.650, 0.704, 0.286)
RUIFROK_EOSIN = (0.072, 0.990, 0.105)
MACENKO_HAEMATOXYLIN = (0.5626, 0.7201, 0.4062)
MACENKO_EOSIN = (0.2159, 0.8012, 0.5581)
NOMINAL_THICKNESS_UM = 4.0
"""Section thickness at which concentrations are given, micrometres."""
_LN_10 = float(np.log(10))
_LUMA = np.array([0.299, 0.587, 0.114], np.float32)

Vector = tuple[float, float, float]


@dataclass(frozen=True)
class SlideLook:
    """How one slide was stained and scanned.

    Attributes:
        slide: number of the slide in its data set.
        haematoxylin_vector: share of haematoxylin's optical density in red, green, blue; unit norm.
        eosin_vector: the same of eosin.
        haematoxylin_strength: dye uptake relative to the nominal one.
        eosin_strength: the same of eosin.
        thickness_um: section thickness, micrometres.
        field_um: edge of the area that one tile shows, micrometres.
        white_point: light through empty glass in red, green, blue, 0 to 255, before the tone curve.
        falloff: part of the light that is lost in a tile's corners compared with its centre.
        psf_um: standard deviation of the scanner's point spread, micrometres.
        sharpening: weight of the scanner's unsharp mask; 0 is none.
        saturation: distance of colours from grey relative to the sensor's; 1 leaves them.
        gamma: exponent of the tone curve; above 1 darkens the middle tones.
        noise: standard deviation of the sensor's noise in empty glass, grey levels.
        jpeg_quality: JPEG quality of the stored tiles, 1 to 100.
    """

    slide: int
    haematoxylin_vector: Vector
    eosin_vector: Vector
    haematoxylin_strength: float
    eosin_strength: float
    thickness_um: float
    field_um: float
    white_point: Vector
    falloff: float
    psf_um: float
    sharpening: float
    saturation: float
    gamma: float
    noise: float
    jpeg_quality: int


def make_slide_look(*, seed: int, slide: int) -> SlideLook:
    """Draws the look of one slide: a function of the seed and the slide's number alone."""
    if seed < 0 or slide < 0:
        raise ValueError(f"seed and slide must be 0 or more, got seed={seed}, slide={slide}")
    rng = np.random.default_rng([seed, slide])
    white = rng.uniform(233, 250) - np.array([rng.uniform(0, 9) for _ in range(3)])
    return SlideLook(
        slide=slide,
        haematoxylin_vector=_stain_vector(rng, MACENKO_HAEMATOXYLIN, RUIFROK_HAEMATOXYLIN),
        eosin_vector=_stain_vector(rng, RUIFROK_EOSIN, MACENKO_EOSIN),
        haematoxylin_strength=_log_uniform(rng, 0.46, 1.5),
        eosin_strength=_log_uniform(rng, 0.42, 1.8),
        thickness_um=float(rng.uniform(3.0, 5.0)),
        field_um=float(rng.uniform(125, 180)),
        white_point=_as_vector(white),
        falloff=float(rng.uniform(0, 0.05)),
        psf_um=_log_uniform(rng, 0.2, 0.5),
        sharpening=float(rng.uniform(0, 0.7)),
        saturation=float(rng.uniform(0.9, 1.3)),
        gamma=_log_uniform(rng, 0.65, 1.4),
        noise=_log_uniform(rng, 0.6, 3.5),
        jpeg_quality=int(rng.integers(60, 96)),
    )


def optical_density(haematoxylin: np.ndarray, *, eosin: np.ndarray, look: SlideLook) -> np.ndarray:
    """Optical density of a stained section.

    Args:
        haematoxylin: (S, S) float32 concentration: optical density at nominal thickness and
            strength, along the unit stain vector.
        eosin: (S, S) float32, likewise.
    Returns:
        (S, S, 3) float32, red, green, blue; linear in both concentrations.
    """
    thickness = look.thickness_um / NOMINAL_THICKNESS_UM
    vectors = np.array(
        [
            np.multiply(look.haematoxylin_vector, look.haematoxylin_strength * thickness),
            np.multiply(look.eosin_vector, look.eosin_strength * thickness),
        ]
    )  # (2, 3)
    return cv2.transform(cv2.merge([haematoxylin, eosin]), vectors.T.astype(np.float32))


def transmitted_light(density: np.ndarray, *, look: SlideLook) -> np.ndarray:
    """Beer-Lambert: the light that passes, I = I0 * 10^-OD, on a scale of 0 to 255.

    Args:
        density: (S, S, 3) float32 optical density.
    Returns:
        (S, S, 3) float32; empty glass has the slide's white point.
    """
    light = cv2.exp(density * np.float32(-_LN_10))
    light *= np.array(look.white_point, np.float32)
    return light


def scan(light: np.ndarray, *, look: SlideLook, rng: np.random.Generator, focus: float = 1.0) -> np.ndarray:
    """What the scanner makes of the light: lens, sensor and tone curve.

    Args:
        light: (S, S, 3) float32, 0 to 255.
        focus: width of the point spread relative to the slide's; above 1 is out of focus.
    Returns:
        (S, S, 3) uint8 RGB.
    """
    size = light.shape[0]
    sigma = focus * look.psf_um * size / look.field_um
    lit = light * (_illumination(size, look.falloff)[..., None] * np.float32(1 / 255))
    image = blur(lit, sigma)
    if look.sharpening > 0:
        wide = blur(image, 1.5 * sigma + 0.3)
        image = cv2.addWeighted(image, 1 + look.sharpening, wide, -look.sharpening, 0)
    np.clip(image, 0, 1, out=image)
    # Photon noise: its variance grows with the light that was counted.
    grain = white_noise(rng, image.shape) * cv2.sqrt(image + np.float32(0.05))
    image = cv2.scaleAdd(grain, look.noise / 255, image)
    image = cv2.pow(np.clip(image, 0, 1, out=image), look.gamma)
    image = cv2.transform(image, _saturation_matrix(look.saturation))
    return cv2.convertScaleAbs(np.maximum(image, 0, out=image), alpha=255)


def _illumination(size: int, falloff: float) -> np.ndarray:
    """Lamp brightness over a tile: (S, S) float32, 1 in the centre, 1 - falloff in the corners."""
    axis = np.linspace(-1, 1, size, dtype=np.float32) ** 2
    return 1 - np.float32(falloff / 2) * (axis[:, None] + axis[None, :])


def _saturation_matrix(saturation: float) -> np.ndarray:
    """Moves colours away from the grey of equal brightness: (3, 3) float32, rows sum to 1."""
    return np.float32(saturation) * np.eye(3, dtype=np.float32) + (1 - saturation) * _LUMA


def _stain_vector(rng: np.random.Generator, first: Vector, second: Vector) -> Vector:
    """A dye between two published ones, nearer the second, turned by some 3 degrees; unit norm."""
    share = rng.uniform(0, 0.7)
    mixed = share * np.array(first) + (1 - share) * np.array(second)
    mixed = np.maximum(mixed + rng.normal(0, 0.04, size=3), 0.02)
    return _as_vector(mixed / np.linalg.norm(mixed))


def _log_uniform(rng: np.random.Generator, low: float, high: float) -> float:
    """A factor between `low` and `high`, as likely to halve as to double."""
    return float(np.exp(rng.uniform(np.log(low), np.log(high))))


def _as_vector(values: np.ndarray) -> Vector:
    """A plain tuple of three floats, so that looks can be compared and hashed."""
    return float(values[0]), float(values[1]), float(values[2])
