__all__ = [
    "FLOW_FIELDS",
    "INPUTS",
    "MODELS",
    "STATEMENT_FIELDS",
    "ZONES",
    "altman_z",
    "beneish_m",
    "distress",
    "springate",
]

STATEMENT_FIELDS: tuple[str, ...]
FLOW_FIELDS: tuple[str, ...]
MODELS: tuple[str, ...]
INPUTS: dict[str, tuple[str, ...]]
ZONES: dict[str, tuple[str, str, str]]

def altman_z(
    wc_ta: float, re_ta: float, ebit_ta: float, mve_tl: float, s_ta: float, sales_coefficient: float = 0.999
) -> float: ...
def springate(wc_ta: float, ebit_ta: float, ebt_cl: float, s_ta: float) -> float: ...
def beneish_m(
    *, dsri: float, gmi: float, aqi: float, sgi: float, depi: float, sgai: float, tata: float, lvgi: float
) -> float: ...
def distress(
    values: dict[str, float | None],
    *,
    listed: bool | None = None,
    manufacturer: bool | None = None,
    gnp_index: float | None = None,
    dollars: float | None = None,
) -> tuple[dict[str, tuple[float | None, str | None, list[str]]], str | None]: ...
