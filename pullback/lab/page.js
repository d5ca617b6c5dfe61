(() => {
  const root = document.documentElement
  const dark = matchMedia("(prefers-color-scheme: dark)")
  let chosen = null
  try { chosen = localStorage.getItem("pullback-theme") } catch { /* no storage: follow the system */ }

  // Bokeh reads colours from CSS when it paints, so that a new theme needs a repaint.
  const repaint = () => {
    if (window.Bokeh?.index == null) return
    const visit = (view) => {
      view.request_repaint?.() ?? view.request_paint?.()
      for (const child of view.child_views ?? []) visit(child)
      for (const child of view.renderer_views?.values?.() ?? []) child.request_paint?.()
      view.repaint?.()
    }
    for (const view of Bokeh.index.roots ?? Object.values(Bokeh.index)) visit(view)
  }
  const apply = () => {
    const name = chosen ?? (dark.matches ? "dark" : "light")
    root.dataset.theme = name
    const button = document.getElementById("theme")
    if (button) button.textContent = name === "dark" ? "Light" : "Dark"
    repaint()
  }
  apply()
  dark.addEventListener("change", apply)

  addEventListener("DOMContentLoaded", () => {
    apply()
    document.getElementById("theme").addEventListener("click", () => {
      chosen = root.dataset.theme === "dark" ? "light" : "dark"
      try { localStorage.setItem("pullback-theme", chosen) } catch { /* only for this page then */ }
      apply()
    })
    const links = new Map([...document.querySelectorAll("nav ol a")].map((a) => [a.hash.slice(1), a]))
    const seen = new IntersectionObserver((entries) => {
      for (const entry of entries) {
        if (!entry.isIntersecting) continue
        for (const a of links.values()) a.removeAttribute("aria-current")
        links.get(entry.target.id)?.setAttribute("aria-current", "true")
      }
    }, {rootMargin: "-30% 0px -60% 0px"})
    for (const section of document.querySelectorAll("main section[id]")) seen.observe(section)

    // Rooms grow while they are built. So that they do not push away the one that the visitor
    // went to, it is scrolled back into place until the visitor moves on.
    let target = null
    const keep = () => target?.scrollIntoView()
    const aim = (hash) => {
      target = hash ? document.getElementById(hash.slice(1)) : null
      keep()
    }
    for (const kind of ["wheel", "touchstart", "pointerdown", "keydown"]) {
      addEventListener(kind, () => { target = null }, {capture: true, passive: true})
    }
    for (const a of links.values()) a.addEventListener("click", () => aim(a.hash))
    addEventListener("hashchange", () => aim(location.hash))
    new ResizeObserver(keep).observe(document.querySelector("main"))
    aim(location.hash)
  })

  // The server may end before the page is closed; then the page says so.
  const listen = setInterval(() => {
    if (!window.Bokeh?.documents?.length) return
    clearInterval(listen)
    const message = document.getElementById("lost")
    for (const shown of Bokeh.documents) {
      shown.config.notify_connection_status = false
      shown.on_event("connection_lost", () => { message.hidden = false })
      shown.on_event("client_reconnected", () => { message.hidden = true })
    }
  }, 200)
})()
