"""Which route answers which path. Most paths are found in a dict before Starlette's patterns are asked."""

from __future__ import annotations

from collections.abc import Mapping

from starlette.routing import Match
from starlette.routing import Route as Pattern

from app.edge.gate import Route
from app.edge.request import Request
from app.errors import MethodNotAllowed, NotFound, clipped

Methods = Mapping[str, Route]


class Table:
    """Paths (in Starlette's form, `/v1/models/{id}`) → method → route. GET answers HEAD too."""

    def __init__(self, paths: Mapping[str, Methods]) -> None:
        self._exact: dict[str, dict[str, Route]] = {}
        # What stands before the last slash → the name of what stands behind it.
        self._last: dict[str, tuple[str, dict[str, Route]]] = {}
        self._routes: list[tuple[Pattern, dict[str, Route]]] = []
        for path, methods in paths.items():
            known = dict(methods)
            if "GET" in known:
                known["HEAD"] = known["GET"]
            start, _, last = path.rpartition("/")
            if "{" not in path:
                self._exact[path] = known
            elif "{" not in start and last[0] == "{" and ":" not in last:
                self._last[start] = (last[1:-1], known)
            else:
                self._routes.append((Pattern(path, _unused), known))

    def find(self, request: Request) -> Route:
        """The route of a request, whose path parameters it fills in. Raises NotFound, MethodNotAllowed."""
        methods = self._exact.get(request.path)
        if methods is None:
            methods = self._match(request)
        route = methods.get(request.method)
        if route is None:
            raise MethodNotAllowed(sorted(methods))
        return route

    def _match(self, request: Request) -> dict[str, Route]:
        # PERF: benchmarks/compare.py, cached read: a pattern's regular expression takes 3 us, this 0.3.
        start, _, last = request.path.rpartition("/")
        found = self._last.get(start)
        if found is not None and last:
            request.path_params = {found[0]: last}
            return found[1]
        for pattern, methods in self._routes:
            match, child = pattern.matches(request.scope)
            if match is not Match.NONE:
                request.path_params = child["path_params"]
                return methods
        raise NotFound(f"path {clipped(request.path, 80)}")


async def _unused() -> None:
    """Starlette's route wants an endpoint; only its matching is used."""
