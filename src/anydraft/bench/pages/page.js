(() => {
  "use strict";
  const root = document.documentElement;
  root.classList.add("scripted");

  // What is chosen: shown is what asks for nothing else.
  const chosen = {};
  const parts = [...document.querySelectorAll("[data-when]")].map((element) => [
    element,
    element.dataset.when.split(" ").map((pair) => pair.split("=")),
  ]);
  const buttons = [...document.querySelectorAll("button[data-key]")];
  for (const button of buttons) {
    if (button.getAttribute("aria-pressed") === "true") chosen[button.dataset.key] ??= button.dataset.value;
  }
  const show = () => {
    for (const [element, pairs] of parts) {
      element.hidden = !pairs.every(([key, value]) => !(key in chosen) || chosen[key] === value);
    }
    for (const button of buttons) {
      button.setAttribute("aria-pressed", String(chosen[button.dataset.key] === button.dataset.value));
    }
  };
  for (const button of buttons) {
    button.addEventListener("click", () => {
      chosen[button.dataset.key] = button.dataset.value;
      hide();
      show();
    });
  }

  // The drawings' own titles become hints that come at once, and on a touch.
  const tip = document.body.appendChild(document.createElement("div"));
  tip.className = "tip";
  tip.hidden = true;
  tip.setAttribute("role", "status");
  for (const title of document.querySelectorAll("svg title")) {
    const owner = title.parentNode;
    if (owner.tagName === "svg") owner.setAttribute("aria-label", title.textContent);
    else owner.dataset.hint = title.textContent;
    title.remove();
  }
  const hide = () => { tip.hidden = true; };
  const point = (event) => {
    const owner = event.target instanceof Element ? event.target.closest("[data-hint]") : null;
    if (!owner) return hide();
    tip.textContent = owner.dataset.hint;
    tip.hidden = false;
    const { width, height } = tip.getBoundingClientRect();
    const left = Math.min(Math.max(event.clientX - width / 2, 8), root.clientWidth - width - 8);
    const above = event.clientY - height - 14;
    tip.style.left = `${left}px`;
    tip.style.top = `${above > 8 ? above : event.clientY + 18}px`;
  };
  document.addEventListener("pointermove", point, { passive: true });
  document.addEventListener("pointerdown", point, { passive: true });
  document.addEventListener("pointerleave", hide);
  document.addEventListener("scroll", hide, { passive: true, capture: true });
  show();
})();
