"use strict";
(() => {
  const world = JSON.parse(document.getElementById("map-points").textContent);
  for (const axis of ["x", "y"]) world[axis] = world[axis].map((at) => 0.015 + 0.97 * at); // no dot is cut by the frame
  const [canvas, box, found, told, status] = ["canvas", "search", "found", "told", "status"]
    .map((name) => document.getElementById("map-" + name));
  const count = world.x.length, side = 64;
  const lowered = world.titles.map((title) => title.toLowerCase());
  const buckets = new Map();
  for (let i = 0; i < count; i++) {
    const key = Math.floor(world.x[i] * side) * (side + 1) + Math.floor(world.y[i] * side);
    if (!buckets.has(key)) buckets.set(key, []);
    buckets.get(key).push(i);
  }
  const groups = world.groups.map(() => []);
  world.group.forEach((group, i) => groups[group].push(i));
  let scale = 1, left = 0, top = 0, chosen = -1, hits = null, hidden = new Set(), waiting = false;

  const colours = () => {
    const style = getComputedStyle(document.documentElement);
    const read = (name) => style.getPropertyValue(name).trim();
    return { groups: ["--s1", "--s2", "--s3", "--s4", "--s5", "--soft"].map(read), ink: read("--ink"), card: read("--card") };
  };
  const size = () => ({ wide: canvas.clientWidth, high: canvas.clientHeight, dots: window.devicePixelRatio || 1 });
  const place = (i, at) => [(world.x[i] - left) * scale * at.wide, (world.y[i] - top) * scale * at.high];

  const draw = () => {
    waiting = false;
    const at = size(), ink = colours(), brush = canvas.getContext("2d");
    if (canvas.width !== at.wide * at.dots || canvas.height !== at.high * at.dots) {
      canvas.width = at.wide * at.dots;
      canvas.height = at.high * at.dots;
    }
    brush.setTransform(at.dots, 0, 0, at.dots, 0, 0);
    brush.clearRect(0, 0, at.wide, at.high);
    const radius = Math.min(4, (count > 10000 ? 1.2 : count > 4000 ? 1.6 : count > 2000 ? 2 : 2.6) * Math.sqrt(scale));
    const began = performance.now();
    groups.forEach((members, group) => {
      if (hidden.has(group)) return;
      brush.fillStyle = ink.groups[group % ink.groups.length];
      brush.globalAlpha = hits ? 0.3 : 0.75;
      for (const i of members) {
        const [x, y] = place(i, at);
        if (x >= -4 && y >= -4 && x <= at.wide + 4 && y <= at.high + 4) brush.fillRect(x - radius, y - radius, 2 * radius, 2 * radius);
      }
    });
    brush.globalAlpha = 1;
    brush.fillStyle = ink.ink;
    for (const i of hits || []) {
      const [x, y] = place(i, at);
      brush.fillRect(x - radius - 1, y - radius - 1, 2 * radius + 2, 2 * radius + 2);
    }
    if (chosen >= 0) {
      const [x, y] = place(chosen, at);
      brush.strokeStyle = ink.ink;
      brush.lineWidth = 2;
      brush.beginPath();
      brush.arc(x, y, radius + 6, 0, 7);
      brush.stroke();
    }
    canvas.dataset.ms = (performance.now() - began).toFixed(2);
    canvas.dataset.draws = Number(canvas.dataset.draws || 0) + 1;
  };
  const redraw = () => {
    if (!waiting) {
      waiting = true;
      requestAnimationFrame(draw);
    }
  };

  const tell = (i) => {
    chosen = i;
    told.replaceChildren();
    if (i >= 0) {
      const [title, group, text] = ["strong", "span", "p"].map((kind) => document.createElement(kind));
      title.textContent = world.titles[i];
      group.textContent = world.named ? " · " + world.groups[world.group[i]] : "";
      group.className = "soft";
      text.textContent = world.texts[i] || "This item has no text.";
      told.append(title, group, text);
    }
    redraw();
  };
  const nearest = (x, y) => {
    const at = size(), reach = 14;
    let best = -1, least = reach * reach;
    const span = { x: reach / (scale * at.wide), y: reach / (scale * at.high) };
    const u = left + x / (scale * at.wide), v = top + y / (scale * at.high);
    for (let a = Math.floor((u - span.x) * side); a <= Math.floor((u + span.x) * side); a++)
      for (let b = Math.floor((v - span.y) * side); b <= Math.floor((v + span.y) * side); b++)
        for (const i of buckets.get(a * (side + 1) + b) || []) {
          if (hidden.has(world.group[i])) continue;
          const [px, py] = place(i, at), far = (px - x) ** 2 + (py - y) ** 2;
          if (far < least) [best, least] = [i, far];
        }
    return best;
  };
  const zoom = (factor, u = 0.5, v = 0.5) => {
    const next = Math.min(64, Math.max(1, scale * factor));
    left += u / scale - u / next;
    top += v / scale - v / next;
    scale = next;
    move(0, 0);
  };
  const move = (across, down) => {
    const free = 1 - 1 / scale;
    left = Math.min(free, Math.max(0, left + across / scale));
    top = Math.min(free, Math.max(0, top + down / scale));
    redraw();
  };
  const whole = () => {
    [scale, left, top] = [1, 0, 0];
    redraw();
  };

  box.addEventListener("input", () => {
    const asked = box.value.trim().toLowerCase();
    hits = asked ? [] : null;
    for (let i = 0; asked && i < count; i++) if (lowered[i].includes(asked)) hits.push(i);
    found.replaceChildren(...(hits || []).slice(0, 12).map((i) => {
      const row = document.createElement("li"), button = document.createElement("button");
      button.type = "button";
      button.textContent = world.titles[i];
      button.addEventListener("click", () => {
        scale = Math.max(scale, 6);
        left = world.x[i] - 0.5 / scale;
        top = world.y[i] - 0.5 / scale;
        move(0, 0);
        tell(i);
      });
      row.append(button);
      return row;
    }));
    const shown = hits && hits.length > 12 ? ", the first 12 are listed" : "";
    status.textContent = hits ? hits.length.toLocaleString("en") + (hits.length === 1 ? " item" : " items") + " found" + shown : "";
    redraw();
  });
  document.querySelectorAll("[data-group]").forEach((toggle) => toggle.addEventListener("click", () => {
    const group = Number(toggle.dataset.group), off = !hidden.has(group);
    if (off) hidden.add(group);
    else hidden.delete(group);
    toggle.setAttribute("aria-pressed", String(!off));
    redraw();
  }));
  document.querySelectorAll("[data-zoom]").forEach((button) => button.addEventListener("click", () => {
    if (button.dataset.zoom === "0") whole();
    else zoom(Number(button.dataset.zoom));
  }));

  let held = null;
  canvas.addEventListener("pointerdown", (event) => {
    held = { x: event.offsetX, y: event.offsetY, moved: false };
    canvas.setPointerCapture(event.pointerId);
  });
  canvas.addEventListener("pointermove", (event) => {
    const at = size();
    if (held) {
      const across = event.offsetX - held.x, down = event.offsetY - held.y;
      if (held.moved || Math.abs(across) + Math.abs(down) > 4) {
        move(-across / at.wide, -down / at.high);
        held = { x: event.offsetX, y: event.offsetY, moved: true };
      }
    } else if (event.pointerType === "mouse") {
      const i = nearest(event.offsetX, event.offsetY);
      if (i >= 0 && i !== chosen) tell(i);
    }
  });
  canvas.addEventListener("pointerup", (event) => {
    if (held && !held.moved) tell(nearest(event.offsetX, event.offsetY));
    held = null;
  });
  canvas.addEventListener("pointercancel", () => { held = null; });
  canvas.addEventListener("wheel", (event) => {
    if (!event.ctrlKey && !event.metaKey) return;
    event.preventDefault();
    const at = size();
    zoom(event.deltaY < 0 ? 1.25 : 0.8, event.offsetX / at.wide, event.offsetY / at.high);
  }, { passive: false });
  const keys = {
    ArrowLeft: () => move(-0.1, 0), ArrowRight: () => move(0.1, 0), ArrowUp: () => move(0, -0.1), ArrowDown: () => move(0, 0.1),
    "+": () => zoom(1.5), "=": () => zoom(1.5), "-": () => zoom(1 / 1.5), 0: whole, Escape: () => tell(-1),
    Enter: () => tell(nearest(canvas.clientWidth / 2, canvas.clientHeight / 2)),
  };
  canvas.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || !keys[event.key]) return;
    event.preventDefault();
    keys[event.key]();
  });
  new ResizeObserver(redraw).observe(canvas);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redraw);
  redraw();
})();
