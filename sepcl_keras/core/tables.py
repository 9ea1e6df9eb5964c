"""Tables that people and programs write: CSV files."""

import csv

from sepcl_keras.core.checks import BadInput


def cells(path, delimiter=None):
    """Lines of a CSV file as (number, cells) without blank ones and the space around cells.

    Cells are separated by what the first line has most of, commas, semicolons or tabs, unless told.
    """
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            first = file.readline()
            file.seek(0)
            delimiter = delimiter or max(",;\t", key=first.count)
            reader = csv.reader(file, delimiter=delimiter, skipinitialspace=True, strict=True)
            lines = [(reader.line_num, [cell.strip() for cell in row]) for row in reader]
    except csv.Error as error:
        raise BadInput(f"{path}, line {reader.line_num}: expected a readable CSV file ({error}).") from None
    except (OSError, UnicodeDecodeError) as error:
        raise BadInput(f"{path}: expected a readable CSV file ({error}).") from None
    return [line for line in lines if any(line[1])]


def read_table(path, columns, header=None):
    """Rows of a CSV file as (line number, dict). Each of `columns` must be there and not be empty.

    A `header` is for files that have none, but may begin with lines of remarks (#).
    """
    if header:
        names, lines = header, [line for line in cells(path, ",") if not line[1][0].startswith("#")]
    else:
        (_, names), *lines = cells(path) or [(0, [])]
    for column in columns:
        if column not in names:
            raise BadInput(f"{path}: expected a column {column}, but found {', '.join(names) or 'an empty file'}.")
    if not lines:
        raise BadInput(f"{path}: expected rows under its header, but the table is empty.")
    for line, found in lines:
        if any(found[len(names) :]):
            raise BadInput(
                f"{path}, line {line}: {len(found)} cells under {len(names)} columns; expected quotes around a cell "
                "that holds what separates cells."
            )
    rows = [(line, dict(zip(names, found))) for line, found in lines]
    for line, row in rows:
        for column in columns:
            if not row.get(column):
                raise BadInput(f"{path}, line {line}: expected a value for {column}, but the cell is empty.")
    return rows


def whole_number(table, line, row, column):
    """The whole number in a cell, or `BadInput` with its line."""
    try:
        return int(row[column])
    except ValueError:
        raise BadInput(f"{table}, line {line}: expected a whole number for {column}, not {row[column]!r}.") from None
