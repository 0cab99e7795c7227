"""Which endpoint answers which path. Most paths are found in a dict before Starlette's routes are asked."""

from __future__ import annotations

from collections.abc import Mapping

from starlette.routing import Match, Route

from app.edge.gate import Endpoint
from app.edge.request import Request
from app.errors import MethodNotAllowed, NotFound, clipped

Methods = Mapping[str, Endpoint]


class Table:
    """Paths (in Starlette's form, `/v1/models/{id}`) → method → endpoint. GET answers HEAD too."""

    def __init__(self, paths: Mapping[str, Methods]) -> None:
        self._exact: dict[str, dict[str, Endpoint]] = {}
        # What stands before the last slash → the name of what stands behind it.
        self._last: dict[str, tuple[str, dict[str, Endpoint]]] = {}
        self._routes: list[tuple[Route, dict[str, Endpoint]]] = []
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
                self._routes.append((Route(path, _unused), known))

    def find(self, request: Request) -> Endpoint:
        """The endpoint of a request, whose path parameters it fills in. Raises NotFound, MethodNotAllowed."""
        methods = self._exact.get(request.path)
        if methods is None:
            methods = self._match(request)
        endpoint = methods.get(request.method)
        if endpoint is None:
            raise MethodNotAllowed(sorted(methods))
        return endpoint

    def _match(self, request: Request) -> dict[str, Endpoint]:
        # PERF: benchmarks/compare.py, cached read: a route's regular expression takes 3 us, this 0.3.
        start, _, last = request.path.rpartition("/")
        found = self._last.get(start)
        if found is not None and last:
            request.path_params = {found[0]: last}
            return found[1]
        for route, methods in self._routes:
            match, child = route.matches(request.scope)
            if match is not Match.NONE:
                request.path_params = child["path_params"]
                return methods
        raise NotFound(f"path {clipped(request.path, 80)}")


async def _unused() -> None:
    """Starlette's Route wants an endpoint; only its matching is used."""
