// A square to draw in with mouse, pen or finger. Strokes go to Python when one ends.
export function render({model, el}) {
  const style = document.createElement("style")
  style.textContent = `
    figure { margin: 0; width: 100%; max-width: 220px; }
    figcaption { display: flex; justify-content: space-between; align-items: baseline;
      font: 0.8125rem var(--font); color: var(--ink-soft); min-height: 1.6rem; }
    figcaption b { color: var(--ink); font-weight: 600; }
    button { font: inherit; color: var(--ink-soft); background: none; border: none; padding: 0 0.2rem;
      cursor: pointer; text-decoration: underline; text-underline-offset: 0.15em; }
    button[hidden] { display: none; }
    .sheet { position: relative; }
    canvas.big { display: block; width: 100%; aspect-ratio: 1; touch-action: none; cursor: crosshair;
      background: var(--raised); border: 1px solid var(--line); border-radius: 4px;
      box-sizing: border-box; }
    canvas.big.fixed { cursor: default; touch-action: auto; }
    canvas.small { position: absolute; right: 4px; bottom: 4px; width: 28px; height: 28px;
      image-rendering: pixelated; border: 1px solid var(--line); background: var(--raised);
      pointer-events: none; }
  `
  const figure = document.createElement("figure")
  const caption = document.createElement("figcaption")
  const name = document.createElement("b"), clear = document.createElement("button")
  clear.textContent = "clear"
  clear.type = "button"
  caption.append(name, clear)
  const sheet = document.createElement("div"), big = document.createElement("canvas")
  const small = document.createElement("canvas")
  sheet.className = "sheet"; big.className = "big"; small.className = "small"
  big.width = big.height = 280
  small.width = small.height = 28
  big.setAttribute("role", "img")
  sheet.append(big, small)
  figure.append(caption, sheet)
  el.append(style, figure)

  let strokes = model.strokes.map((stroke) => [...stroke]), stroke = null
  const image = new Image()
  image.onload = () => paint()

  const tinted = (canvas, smooth) => {
    const pen = canvas.getContext("2d")
    pen.clearRect(0, 0, canvas.width, canvas.height)
    pen.imageSmoothingEnabled = smooth
    if (image.src && image.complete && image.naturalWidth > 0) {
      pen.globalCompositeOperation = "source-over"
      pen.drawImage(image, 0, 0, canvas.width, canvas.height)
      pen.globalCompositeOperation = "source-in"
      pen.fillStyle = getComputedStyle(el).getPropertyValue("--ink") || "#888"
      pen.fillRect(0, 0, canvas.width, canvas.height)
      pen.globalCompositeOperation = "source-over"
    }
  }
  const paint = () => {
    const drawn = strokes.length > 0 || stroke != null
    tinted(small, false)
    small.style.display = drawn && image.src ? "block" : "none"
    if (!drawn) { tinted(big, false); return }
    const pen = big.getContext("2d")
    pen.clearRect(0, 0, 280, 280)
    pen.strokeStyle = pen.fillStyle = getComputedStyle(el).getPropertyValue("--ink") || "#888"
    pen.lineWidth = 14
    pen.lineCap = pen.lineJoin = "round"
    for (const points of stroke == null ? strokes : [...strokes, stroke]) {
      pen.beginPath()
      points.forEach(([x, y], i) => i ? pen.lineTo(280 * x, 280 * y) : pen.moveTo(280 * x, 280 * y))
      if (points.length === 1) pen.lineTo(280 * points[0][0], 280 * points[0][1])
      pen.stroke()
    }
  }
  const place = (event) => {
    const box = big.getBoundingClientRect()
    const inside = (value) => Math.round(1000 * Math.min(Math.max(value, 0), 1)) / 1000
    return [inside((event.clientX - box.left) / box.width), inside((event.clientY - box.top) / box.height)]
  }
  big.addEventListener("pointerdown", (event) => {
    if (model.fixed || !event.isPrimary) return
    big.setPointerCapture(event.pointerId)
    stroke = [place(event)]
    paint()
    event.preventDefault()
  })
  big.addEventListener("pointermove", (event) => {
    if (stroke == null || stroke.length > 1500) return
    const [x, y] = place(event), [a, b] = stroke[stroke.length - 1]
    if (Math.hypot(x - a, y - b) < 0.008) return
    stroke.push([x, y])
    paint()
  })
  const end = () => {
    if (stroke == null) return
    strokes = [...strokes, stroke].slice(-60)
    stroke = null
    model.strokes = strokes
    paint()
  }
  big.addEventListener("pointerup", end)
  big.addEventListener("pointercancel", end)
  clear.addEventListener("click", () => {
    strokes = []
    model.strokes = []
    model.cleared = model.cleared + 1
    paint()
  })

  const settings = () => {
    name.textContent = model.label
    big.setAttribute("aria-label", `${model.label}: a square to draw in`)
    big.classList.toggle("fixed", model.fixed)
    clear.hidden = model.fixed
    clear.setAttribute("aria-label", `clear ${model.label}`)
  }
  const picture = () => {
    if (model.picture) image.src = model.picture
    else { image.removeAttribute("src"); paint() }
  }
  model.on("label", settings)
  model.on("fixed", settings)
  model.on("picture", picture)
  model.on("strokes", () => { strokes = model.strokes.map((points) => [...points]); paint() })
  const themes = new MutationObserver(paint)
  themes.observe(document.documentElement, {attributes: true, attributeFilter: ["data-theme"]})
  model.on("remove", () => themes.disconnect())
  settings()
  picture()
  paint()
}
