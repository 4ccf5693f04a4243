"""The look: the colors, type and spacing of the reports, in gradio's own variables and a stylesheet of ours."""

from pathlib import Path

import gradio as gr

from undiffuse.report import page

PAPER, CARD, LINE, INK, SOFT, ACCENT = (f"var(--{name})" for name in ("paper", "card", "line", "ink", "soft", "accent"))

COLORS = {
    PAPER: "body_background_fill background_fill_primary input_background_fill input_background_fill_focus "
    "checkbox_background_color checkbox_label_background_fill button_secondary_background_fill "
    "button_primary_text_color checkbox_background_color_hover checkbox_background_color_focus "
    "button_primary_text_color_hover",
    CARD: "background_fill_secondary block_label_background_fill checkbox_label_background_fill_hover "
    "button_secondary_background_fill_hover code_background_fill stat_background_fill table_even_background_fill "
    "checkbox_label_background_fill_selected",
    LINE: "border_color_primary input_border_color checkbox_border_color checkbox_label_border_color "
    "button_secondary_border_color block_border_color panel_border_color input_border_color_hover "
    "checkbox_label_border_color_hover",
    INK: "body_text_color block_title_text_color block_label_text_color checkbox_label_text_color "
    "checkbox_label_text_color_selected button_secondary_text_color button_secondary_text_color_hover",
    SOFT: "body_text_color_subdued block_info_text_color input_placeholder_color button_secondary_border_color_hover "
    "accordion_text_color",
    ACCENT: "color_accent border_color_accent link_text_color link_text_color_hover link_text_color_active "
    "link_text_color_visited slider_color loader_color input_border_color_focus checkbox_border_color_focus "
    "checkbox_background_color_selected checkbox_border_color_selected checkbox_label_border_color_selected "
    "button_primary_background_fill button_primary_border_color button_primary_background_fill_hover "
    "button_primary_border_color_hover",
    "transparent": "block_background_fill block_title_background_fill panel_background_fill",
    "none": "block_shadow block_label_shadow checkbox_shadow checkbox_label_shadow input_shadow input_shadow_focus "
    "button_primary_shadow button_secondary_shadow button_primary_shadow_hover button_secondary_shadow_hover "
    "button_primary_shadow_active button_secondary_shadow_active",
    "0": "block_border_width panel_border_width block_label_border_width block_padding",
    "0.4rem": "input_radius block_radius container_radius checkbox_label_padding button_large_radius "
    "button_medium_radius button_small_radius table_radius",
    "0.88rem": "block_title_text_size checkbox_label_text_size input_text_size button_large_text_size "
    "button_medium_text_size",
    "1px": "input_border_width checkbox_border_width checkbox_label_border_width button_border_width",
    "600": "button_large_text_weight block_title_text_weight button_medium_text_weight",
    "0.8rem": "block_info_text_size block_label_text_size",
}
"""Which of gradio's variables have which value, in light and dark mode alike: ours change with the mode themselves."""


def make() -> gr.themes.Base:
    """The theme. Its fonts are the system's, so that none is fetched."""
    values = {name: value for value, names in COLORS.items() for name in names.split()}
    theme = gr.themes.Base(
        text_size="md", spacing_size="md", radius_size="md", font=["system-ui", "sans-serif"],
        font_mono=["ui-monospace", "monospace"],
    )  # fmt: skip
    dark = {f"{name}_dark": value for name, value in values.items() if hasattr(theme, f"{name}_dark")}
    return theme.set(**values, **dark)


def head() -> str:
    """The reports' colors, what gradio has no variables for, and the script that packs folders."""
    here = Path(__file__).parent
    colors = (Path(page.__file__).parent / "tokens.css").read_text()
    return (
        f"<style>{colors}{(here / 'studio.css').read_text()}</style><script>{(here / 'folder.js').read_text()}</script>"
    )
