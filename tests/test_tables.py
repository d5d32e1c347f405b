from sak import tables

ROWS = [("task", "miou", "n", "unit"), ("semseg", "20.17", "3", "%"), ("edge", "-", "", "%")]


def test_columns_of_numbers_stand_to_the_right_wherever_they_are():
    assert tables.console(ROWS).splitlines() == [
        "task     miou  n  unit",
        "----------------------",
        "semseg  20.17  3  %",
        "edge        -     %",
    ]


def test_markdown_is_aligned_too():
    assert tables.markdown(ROWS).splitlines() == [
        "| task   |  miou | n | unit |",
        "|--------|------:|--:|------|",
        "| semseg | 20.17 | 3 | %    |",
        "| edge   |     - |   | %    |",
    ]


def test_signs_spreads_and_bold_numbers_are_numbers_and_names_are_not():
    rows = [("change", "mean", "name"), ("+0.5", "1.0 ± 0.2", "sam"), ("-0.5", "**2.0**", "2nd clip?")]
    assert tables.markdown(rows).splitlines()[1] == "|-------:|----------:|-----------|"
