"""What a tile was cut from, by its path."""

import pytest

from dinov2.data.group_names import group_of


@pytest.mark.parametrize(
    ("name", "group"),
    [
        ("WBC/BloodImage_00012_0031.jpg", "BloodImage_00012"),
        ("TUM/slide7/12.png", "slide7"),
        ("TUM/patient 3/slide7/12.png", "patient 3/slide7"),
        ("a/tile.png", "tile"),
        ("s1-0004.tif", "s1"),
        ("s.1.x.tif", "s.1.x"),
        ("no_extension_7", "no_extension"),
        ("two\nlines_1.png", "two lines"),
    ],
)
def test_groups(name, group):
    assert group_of(name) == group
