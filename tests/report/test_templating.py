import pytest
from jinja2 import UndefinedError

from ntbench.report.templating import escape_latex, escape_markdown, html, latex, markdown

HOSTILE = "<script>&|*_\\x{}$%#~^[a](b)"


def test_html_values_are_escaped() -> None:
    assert html().from_string("{{ x }}").render(x="<b>&\"'") == "&lt;b&gt;&amp;&#34;&#39;"


def test_markdown_values_are_neither_markup_nor_html() -> None:
    text = markdown().from_string("{{ x }}").render(x=HOSTILE + "\nnext|cell")
    assert text == r"&lt;script&gt;&amp;\|\*\_\\x{}$%\#\~^\[a\](b) next\|cell"
    assert escape_markdown("digits_m") == "digits_m"


def test_latex_values_are_no_commands() -> None:
    text = latex().from_string("<< x >>").render(x=HOSTILE)
    escaped = r"$<$script$>$\&\textbar{}*\_\textbackslash{}x\{\}\$\%\#\textasciitilde{}\textasciicircum{}{[}a{]}(b)"
    assert text == escaped
    assert escape_latex("caf\N{LATIN SMALL LETTER E WITH ACUTE}\n\nnext") == "caf? next"


@pytest.mark.parametrize(("environment", "minus"), [(html(), "\N{MINUS SIGN}"), (latex(), "$-$")])
def test_numbers_get_a_true_minus_and_missing_ones_keep_their_dash(environment: object, minus: str) -> None:
    template = environment.from_string({"\N{MINUS SIGN}": "{{ x | minus }}"}.get(minus, "<< x | minus >>"))  # type: ignore[attr-defined]
    assert template.render(x="-0.4").startswith(f"{minus}0.4")
    assert template.render(x="-") == "-"


def test_a_misspelt_name_in_a_template_is_an_error() -> None:
    with pytest.raises(UndefinedError):
        html().from_string("{{ absent }}").render()
