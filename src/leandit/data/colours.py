"""From the colours of an embedded ICC profile to sRGB, which is what models learn and what screens show."""

from __future__ import annotations

import io

from PIL import Image, ImageCms

# Modes of pictures to the colour spaces that a profile of such a picture can have.
_SPACES = {"RGB": "RGB ", "L": "GRAY", "CMYK": "CMYK"}


def to_srgb(picture: Image.Image, profile: bytes | None) -> Image.Image:
    """Return the picture in sRGB. Without a profile, with sRGB's or with one of another kind of picture, it stays.

    Viewers ignore a profile that is damaged or does not fit, and so does this function.
    """
    if not profile:
        return picture
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        if source.profile.xcolor_space != _SPACES.get(picture.mode) or _is_srgb(source):
            return picture
        target = ImageCms.createProfile("sRGB")
        converted = ImageCms.profileToProfile(picture, source, target, outputMode="RGB")
    except (ImageCms.PyCMSError, OSError, ValueError):
        return picture
    return picture if converted is None else converted


def _is_srgb(profile: ImageCms.ImageCmsProfile) -> bool:
    return "sRGB" in (profile.profile.profile_description or "")
