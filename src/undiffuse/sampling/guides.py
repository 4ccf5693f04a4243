"""Which models may guide another in sampling (autoguidance): those of the same images, told the same or nothing."""

from undiffuse.config import Config


def check_can_guide(guide: Config, guided: Config, cannot: str = "The guide cannot guide this model") -> None:
    """Raises ValueError where the guide makes other images, or has other classes or conditions."""
    theirs, ours = guide.network, guided.network
    same_images = (theirs.size, theirs.image_channels) == (ours.size, ours.image_channels)
    if not same_images or guide.class_names not in ((), guided.class_names):
        raise ValueError(f"{cannot}: it makes images of another size or classes.")
    their_columns, our_columns = (each.attributes and each.attributes.columns for each in (guide, guided))
    if their_columns not in (None, our_columns):
        raise ValueError(f"{cannot}: its table has other columns, or other images.")
    if guide.image_condition not in (None, guided.image_condition):
        raise ValueError(f"{cannot}: it makes images from others of another kind.")
