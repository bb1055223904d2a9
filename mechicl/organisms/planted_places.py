"""Which head of a planted model gets which role."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from mechicl.organisms.planted_circuit import Head


def place_heads(
    roles: Sequence[str], n_decoys: int, n_layers: int, n_heads: int, at: Mapping[str, Head], rng: np.random.Generator
) -> tuple[Head, dict[str, tuple[Head, ...]]]:
    """The carrier in layer 0, and role -> heads of layers 1 and up; what `at` does not name is drawn.

    Each of `roles` gets one head, a "backup" in a later layer than the "ife" head; "decoy" gets `n_decoys`, "spare" all
    that are left. Raises ValueError for places out of range, taken twice or in the wrong order, and for too few heads.
    """
    upper = [(layer, head) for layer in range(1, n_layers) for head in range(n_heads)]
    for role, head in at.items():
        fits = [(0, h) for h in range(n_heads)] if role == "carrier" else upper if role in roles else []
        if head not in fits:
            raise ValueError(
                f"got {role!r} at {head}; expected one of the roles {['carrier', *roles]} at (layer, head), carrier "
                f"in layer 0, others in layers 1 to {n_layers - 1}, heads 0 to {n_heads - 1}"
            )
    if len(set(at.values())) < len(at):
        raise ValueError(f"got the places {dict(at)}, one of them twice; give each role its own head")
    carrier = at.get("carrier", (0, int(rng.integers(n_heads))))
    found = {role: at[role] for role in roles if role in at}
    for role in [*roles, *(f"decoy {i}" for i in range(n_decoys))]:
        if role not in found:
            free = [
                head for head in upper if head not in found.values() and _in_order(role, head, found, roles, n_layers)
            ]
            if not free:
                raise ValueError(
                    f"no head is left for {role!r} among {n_layers} layers of {n_heads} heads; add layers or heads (a "
                    "backup comes in a later layer than the IFE head, which comes in layer 1 or later)"
                )
            found[role] = free[int(rng.integers(len(free)))]
    if "backup" in found and found["backup"][0] <= found["ife"][0]:
        raise ValueError(f"got the backup at {found['backup']}; give it a later layer than the IFE head {found['ife']}")
    places: dict[str, tuple[Head, ...]] = {role: (found[role],) for role in roles}
    if n_decoys:
        places["decoy"] = tuple(sorted(found[f"decoy {i}"] for i in range(n_decoys)))
    return carrier, places | {"spare": tuple(head for head in upper if head not in found.values())}


def _in_order(role: str, head: Head, found: Mapping[str, Head], roles: Sequence[str], n_layers: int) -> bool:
    """Does the backup come after the IFE head?"""
    if role == "ife" and "backup" in roles:
        return head[0] < found.get("backup", (n_layers - 1, 0))[0]
    return role != "backup" or head[0] > found["ife"][0]
