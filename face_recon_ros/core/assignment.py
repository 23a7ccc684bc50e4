"""Least-cost assignment of rows to columns."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike


def assign(cost: ArrayLike) -> list[tuple[int, int]]:
    """Least-cost assignment (Kuhn 1955; shortest augmenting paths, Jonker and Volgenant 1987).

    Args:
        cost: (N, M) finite.

    Returns:
        min(N, M) pairs (row, column), by row.
    """
    c = np.asarray(cost, np.float64)
    if c.size == 0:
        return []
    if c.shape[0] > c.shape[1]:
        return sorted((i, j) for j, i in assign(c.T))
    n, m = c.shape
    row_price, column_price = np.zeros(n), np.zeros(m + 1)
    row_of = np.full(m + 1, -1)  # of each column; the last column is a dummy that starts each path
    for row in range(n):
        row_of[m] = row
        column, visited = m, np.zeros(m + 1, bool)
        slack, previous = np.full(m, np.inf), np.full(m, m)
        while row_of[column] >= 0:
            visited[column] = True
            i = row_of[column]
            reduced = c[i] - row_price[i] - column_price[:m]
            better = ~visited[:m] & (reduced < slack)
            slack[better], previous[better] = reduced[better], column
            column = int(np.argmin(np.where(visited[:m], np.inf, slack)))
            step = slack[column]
            row_price[row_of[visited]] += step
            column_price[visited] -= step
            slack[~visited[:m]] -= step
        while column != m:
            row_of[column] = row_of[previous[column]]
            column = int(previous[column])
    return sorted((int(row_of[j]), j) for j in range(m) if row_of[j] >= 0)
