"""What the tests of the benchmark page ask a browser: which texts are in each other's way, which are hard to read."""

from browser import Browser

SHOWN = "const shown = (selector) => [...document.querySelectorAll(selector)].filter((e) => e.getClientRects().length);"
BOXES = f"""(() => {{ {SHOWN}
    return shown("svg.chart").map((svg) => {{
        const out = (e) => {{ const b = e.getBoundingClientRect(); return [b.left, b.top, b.right, b.bottom]; }};
        const texts = [...svg.querySelectorAll("text")].map((e) => [e.textContent, ...out(e)]);
        return {{ name: svg.closest("section").id, box: out(svg), texts, marks: svg.querySelectorAll(".mark").length }};
    }}); }})()"""
CONTRAST = f"""(() => {{ {SHOWN}
    const light = (colour) => {{
        const canvas = Object.assign(document.createElement("canvas"), {{ width: 1, height: 1 }}).getContext("2d");
        canvas.fillStyle = colour;
        canvas.fillRect(0, 0, 1, 1);
        const [r, g, b] = [...canvas.getImageData(0, 0, 1, 1).data].slice(0, 3).map((value) => {{
            const share = value / 255;
            return share <= 0.04045 ? share / 12.92 : ((share + 0.055) / 1.055) ** 2.4;
        }});
        return 0.2126 * r + 0.7152 * g + 0.0722 * b;
    }};
    const contrast = (...colours) => {{
        const [dark, bright] = colours.map(light).sort((one, two) => one - two);
        return (bright + 0.05) / (dark + 0.05);
    }};
    const paper = getComputedStyle(document.body).backgroundColor;
    const found = [];
    for (const e of shown("svg text:not(.in-part)")) {{
        found.push([e.textContent, contrast(getComputedStyle(e).fill, paper)]);
    }}
    for (const e of shown(".in-part")) {{
        const part = getComputedStyle(e.parentNode.querySelector("rect")).fill;
        found.push([e.textContent, contrast(getComputedStyle(e).fill, part)]);
    }}
    for (const e of shown("p, h1, h2, dt, dd, small, td, th, li, button, .prompt")) {{
        found.push([e.textContent, contrast(getComputedStyle(e).color, paper)]);
    }}
    return [light(paper), found];
}})()"""


def crowded(browser: Browser) -> list[tuple[str, ...]]:
    """Texts of the drawings that reach out of them, or into another text."""
    bad: list[tuple[str, ...]] = []
    for found in browser.evaluate(BOXES):
        left, top, right, bottom = found["box"]
        assert right - left > 250
        for place, (text, *one) in enumerate(found["texts"]):
            if not (left - 1 <= one[0] and top - 1 <= one[1] and one[2] <= right + 1 and one[3] <= bottom + 1):
                bad.append((found["name"], "reaches out", text))
            for other, *two in found["texts"][:place]:
                if not (one[0] >= two[2] - 1 or two[0] >= one[2] - 1 or one[1] >= two[3] - 4 or two[1] >= one[3] - 4):
                    bad.append((found["name"], text, other))
    return bad
