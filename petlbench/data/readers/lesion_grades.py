"""Which grade each made-up eye has, how many lesions, and whose eye it is: settings and seeded draws."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field, model_validator

from petlbench.data.readers.base import ReaderSettings

if TYPE_CHECKING:
    import numpy as np

__all__ = ["GRADES", "LesionSettings", "grade_of", "lesion_count", "patient_of", "stream"]


GRADES = 5
_BLOCK = 2 * GRADES
_GRADE_STREAM, _COUNT_STREAM = 0, 1


class LesionSettings(ReaderSettings):
    """What the generated images are like."""

    image_count: int = Field(default=600, ge=60, le=100_000, description="Number of images.")
    image_size: int = Field(default=512, ge=128, le=2048, description="Width and height in pixels.")
    lesion_min_size: int = Field(default=2, ge=1, le=64, description="Smallest lesion's diameter in pixels.")
    lesion_max_size: int = Field(default=8, ge=1, le=64, description="Largest lesion's diameter in pixels.")
    lesions_per_grade: int = Field(default=4, ge=1, le=10, description="Grade g has about g times as many lesions.")
    seed: int = Field(default=0, ge=0, le=2**32 - 1, description="Seed of the images, not of the run.")

    @model_validator(mode="after")
    def _fits(self) -> LesionSettings:
        if self.lesion_min_size > self.lesion_max_size:
            raise ValueError(
                f"lesion_min_size {self.lesion_min_size} is greater than lesion_max_size {self.lesion_max_size}"
            )
        most = (GRADES - 1) * self.lesions_per_grade + 1
        if 4 * most * (self.lesion_max_size + 4) ** 2 > self.image_size**2:
            raise ValueError(
                f"{most} lesions of up to {self.lesion_max_size} pixels do not fit into {self.image_size} pixels"
            )
        return self


def stream(settings: LesionSettings, index: int, purpose: int) -> np.random.Generator:
    """Return the random numbers that one image has for one purpose, whatever other images are made."""
    import numpy as np

    return np.random.Generator(np.random.PCG64(np.random.SeedSequence([settings.seed, index, purpose])))


def patient_of(index: int) -> int:
    """Return the patient whose eye image `index` shows: two eyes a patient."""
    return index // 2


def grade_of(settings: LesionSettings, index: int) -> int:
    """Return the grade of image `index`, 0 to 4: in every ten images in a row each grade occurs twice."""
    order = stream(settings, index // _BLOCK, _GRADE_STREAM).permutation(_BLOCK)
    return int(order[index % _BLOCK]) % GRADES


def lesion_count(settings: LesionSettings, index: int) -> int:
    """Return how many lesions image `index` has: none in grade 0, and never as many as in the next grade."""
    grade = grade_of(settings, index)
    if grade == 0:
        return 0
    spread = min(1, (settings.lesions_per_grade - 1) // 2)
    return grade * settings.lesions_per_grade + int(
        stream(settings, index, _COUNT_STREAM).integers(-spread, spread + 1)
    )
