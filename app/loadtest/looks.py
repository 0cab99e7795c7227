"""How the page of a report looks, and the little that moves on it.

Colours are those of Okabe and Ito, which people with any kind of colour blindness tell apart; no colour says anything
that a sign, a word or dashes do not say too.
"""

STYLE = """
:root{color-scheme:light dark;--ink:#1c2430;--soft:#586374;--line:#dfe3ea;--page:#fff;--well:#f5f7fa;--link:#1d5fbf;
--grid:#e8ebf0;--blue:#0072b2;--sky:#4aa8dc;--orange:#c65500;--purple:#a3508a;--green:#00805c;--red:#c0273f;
--good:#0b6b50;--good-well:#e0f3ec;--bad:#a1263a;--bad-well:#fce6e9;--open:#586374;--open-well:#eef1f5;
--warn:#7a4a00;--warn-well:#fdf0d8}
@media(prefers-color-scheme:dark){:root{--ink:#e3e8ef;--soft:#9aa5b5;--line:#2b3442;--page:#12171f;--well:#1a212c;
--link:#82b4ff;--grid:#232b37;--blue:#4ba9e6;--sky:#9bd4f5;--orange:#f0883e;--purple:#d890c0;--green:#3cc69a;--red:#ff7088;
--good:#74d9b6;--good-well:#12352b;--bad:#ff94a4;--bad-well:#411a22;--open:#9aa5b5;--open-well:#232b37;
--warn:#f0bd7b;--warn-well:#3b2a12}}
*{box-sizing:border-box}
html{scroll-padding-top:1rem}
body{margin:0 auto;max-width:80rem;padding:2rem clamp(1rem,3vw,2.5rem) 4rem;background:var(--page);color:var(--ink);
font:16px/1.55 system-ui,-apple-system,"Segoe UI",Roboto,"Helvetica Neue",Arial,sans-serif}
a{color:var(--link);text-decoration:none}
a:hover{text-decoration:underline}
:focus-visible{outline:2px solid var(--link);outline-offset:2px;border-radius:3px}
h1{margin:0;font-size:1.9rem;line-height:1.2;letter-spacing:-.015em}
h2{margin:0;font-size:1.45rem;letter-spacing:-.01em}
h3{margin:2.2rem 0 .5rem;font-size:1.05rem}
p{margin:.4rem 0;max-width:52rem}
.soft{color:var(--soft)}
section{border-top:1px solid var(--line);margin-top:3rem;padding-top:1.8rem}
.head{display:flex;flex-wrap:wrap;gap:.4rem .9rem;align-items:center}
.badge{display:inline-block;padding:.05rem .6rem;border-radius:1rem;font-size:.82rem;font-weight:600;white-space:nowrap;
color:var(--open);background:var(--open-well)}
.badge.met{color:var(--good);background:var(--good-well)}
.badge.missed,.badge.invalid{color:var(--bad);background:var(--bad-well)}
.banner{margin:1.2rem 0 .4rem;padding:.9rem 1.2rem;border-radius:8px;border-left:6px solid var(--open);
background:var(--open-well)}
.banner p{margin:0;max-width:none}
.banner .say{font-size:1.15rem;font-weight:600}
.banner.met{border-color:var(--good);background:var(--good-well)}
.banner.missed{border-color:var(--bad);background:var(--bad-well)}
.banner.warn{border-color:var(--warn);background:var(--warn-well)}
.banner.invalid{border:3px solid var(--bad);background:var(--bad-well)}
.banner.invalid .say{color:var(--bad);font-size:1.3rem;letter-spacing:.02em}
.tiles{display:grid;grid-template-columns:repeat(auto-fit,minmax(8.2rem,1fr));gap:.7rem;margin:1.2rem 0 0;padding:0}
.tiles div{background:var(--well);border-radius:8px;padding:.55rem .8rem}
.tiles dt{color:var(--soft);font-size:.82rem}
.tiles dd{margin:0;font-size:1.12rem;font-weight:600;line-height:1.35;font-variant-numeric:tabular-nums}
.table{overflow-x:auto}
header+main>.table{margin-top:1.4rem}
.keys{margin-top:1.4rem}
table{border-collapse:collapse;width:100%;font-size:.92rem;font-variant-numeric:tabular-nums}
caption{text-align:left}
th{text-align:left;font-weight:600;color:var(--soft);font-size:.8rem;vertical-align:bottom}
th,td{padding:.4rem 1.1rem .4rem 0;border-bottom:1px solid var(--line);vertical-align:top}
td.figure,th.figure{text-align:right;white-space:nowrap}
td.missed{color:var(--bad);font-weight:600}
td.worse{color:var(--bad)}
td.better{color:var(--good)}
.split{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(24rem,100%),1fr));gap:0 2.5rem}
.split td{overflow-wrap:anywhere}
.split td:first-child{color:var(--soft);width:13rem}
.charts{display:grid;grid-template-columns:repeat(2,minmax(0,1fr));gap:1.8rem 2.2rem;margin-top:1.8rem}
figure{margin:0;min-width:0;display:flex;flex-direction:column}
figcaption{font-size:.95rem;line-height:1.35}
figcaption .told{display:block;color:var(--soft);font-size:.82rem}
.legend{list-style:none;margin:.3rem 0 1.4rem;display:flex;flex-wrap:wrap;gap:.1rem 1.1rem;padding:0;font-size:.82rem}
.legend li{display:flex;align-items:center;gap:.4rem}
.key{width:22px;height:10px;flex:none}
.field{position:relative;flex:none;margin:auto .4rem 1.7rem 4.2rem;height:190px}
.plot{display:block;width:100%;height:100%;overflow:visible}
.data{overflow:visible}
.over{position:absolute;inset:0;touch-action:pan-y}
.absent{margin:.6rem 0 0;padding:2.6rem 1rem;border:1px dashed var(--line);border-radius:8px;color:var(--soft);
text-align:center;font-size:.9rem;max-width:none}
text{font:12px system-ui,-apple-system,"Segoe UI",Roboto,Arial,sans-serif;fill:var(--soft)}
text.mark{font-size:11.5px;fill:var(--ink);paint-order:stroke;stroke:var(--page);stroke-width:3px;stroke-linejoin:round}
text.note{font-size:14px}
.grid{stroke:var(--grid)}
.line{fill:none;stroke-width:1.8;stroke-linejoin:round;stroke-linecap:round;vector-effect:non-scaling-stroke}
.dotted{stroke-dasharray:1 5;stroke-width:2.4}
.line.blue{stroke:var(--blue)}.line.sky{stroke:var(--sky)}.line.orange{stroke:var(--orange)}
.line.purple{stroke:var(--purple)}.line.green{stroke:var(--green)}.line.ink{stroke:var(--ink)}.line.red{stroke:var(--red)}
.dashed{stroke-dasharray:7 5}
.long{stroke-dasharray:12 4 2 4}
.bars.blue,.area.blue{fill:var(--blue)}.bars.red{fill:var(--red)}
.area{fill-opacity:.13}
.level{stroke:var(--soft);stroke-dasharray:5 4}
.edge{stroke:var(--soft);stroke-width:1}
.edge.stage,.edge.percentile{stroke-dasharray:2 3}
.band.fault{fill:var(--red);fill-opacity:.2}
.band.recovery{fill:var(--orange);fill-opacity:.2}
.edge.recovery{stroke:none}
.edge.fault{stroke:var(--red)}
.swatch{width:14px;height:14px;vertical-align:-2px;margin:0 .35rem 0 .6rem;border:1px solid var(--line)}
.cursor{stroke:var(--ink);stroke-width:1;visibility:hidden}
.cursor.on{visibility:visible}
.tip{position:absolute;top:0;z-index:1;pointer-events:none;background:var(--page);color:var(--ink);
border:1px solid var(--line);border-radius:6px;box-shadow:0 2px 10px rgb(0 0 0/.18);padding:.35rem .6rem;
font-size:.8rem;line-height:1.45;white-space:nowrap;font-variant-numeric:tabular-nums}
.tip div{display:flex;gap:.45rem;align-items:center}
.tip b{margin-left:auto;padding-left:.8rem}
.bar{width:7rem;height:10px;display:block;margin-top:.4rem}
.bar .trough{fill:var(--open-well)}
.bar .met{fill:var(--good)}.bar .missed{fill:var(--bad)}.bar .not_judged{fill:var(--open)}
.bar line{stroke:var(--ink);stroke-width:2}
@media(max-width:56rem){.charts{grid-template-columns:minmax(0,1fr)}}
@media(max-width:40rem){body{padding-top:1.2rem}h1{font-size:1.55rem}.field{margin-left:3.6rem;height:170px}
.tiles{grid-template-columns:repeat(2,minmax(0,1fr))}th,td{padding-right:.8rem}.extra{display:none}
td:nth-child(n+5):not(.figure){min-width:9rem}
.few td.figure{white-space:normal}}
@media print{figure,tr{break-inside:avoid}.over,.tip{display:none}}
"""

SCRIPT = """
for (const figure of document.querySelectorAll("figure.chart")) {
  const source = figure.querySelector("script");
  if (!source) continue;
  const {at, moments, lines} = JSON.parse(source.textContent);
  const [over, tip, cursor] = [".over", ".tip", ".cursor"].map(name => figure.querySelector(name));
  let shown = -1;
  function add(parent, name, text) {
    const element = document.createElement(name);
    element.textContent = text;
    parent.append(element);
  }
  function show(place) {
    if (place === shown) return;
    shown = place;
    cursor.setAttribute("x1", 100 * at[place] + "%");
    cursor.setAttribute("x2", 100 * at[place] + "%");
    cursor.classList.add("on");
    tip.replaceChildren();
    add(tip, "div", moments[place]);
    for (const [name, tone, texts] of lines) {
      const row = document.createElement("div"), legend = [...figure.querySelectorAll(".legend li")];
      const key = legend.find(item => item.textContent === name);
      if (key) row.append(key.firstChild.cloneNode(true));
      add(row, "span", name);
      add(row, "b", texts[place]);
      tip.append(row);
    }
    tip.hidden = false;
    const whole = over.clientWidth, x = at[place] * whole, width = tip.offsetWidth;
    const side = x + 12 + width > whole ? x - 12 - width : x + 12;
    tip.style.left = Math.max(-40, Math.min(side, whole - width + 8)) + "px";
  }
  function hide() {
    shown = -1;
    tip.hidden = true;
    cursor.classList.remove("on");
  }
  over.addEventListener("pointermove", event => {
    const box = over.getBoundingClientRect(), x = (event.clientX - box.left) / box.width;
    let low = 0, high = at.length - 1;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (at[middle] < x) low = middle + 1; else high = middle;
    }
    show(low > 0 && x - at[low - 1] < at[low] - x ? low - 1 : low);
  });
  over.addEventListener("pointerleave", hide);
  over.addEventListener("blur", hide);
  over.addEventListener("keydown", event => {
    const step = {ArrowLeft: -1, ArrowRight: 1, Home: -at.length, End: at.length}[event.key];
    if (!step) return;
    event.preventDefault();
    show(Math.max(0, Math.min(at.length - 1, shown + step)));
  });
}
"""
