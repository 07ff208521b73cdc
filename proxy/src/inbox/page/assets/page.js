// The page works without this. With it: news appear by themselves, times tick, and the keyboard is enough.
'use strict';
(() => {
  const root = document.documentElement;
  const body = document.body;
  root.classList.add('scripted');

  // The server's own pages are the only HTML that is ever parsed here.
  const policy = window.trustedTypes && trustedTypes.createPolicy('holdfast', { createHTML: text => text });
  const parse = text => new DOMParser().parseFromString(policy ? policy.createHTML(text) : text, 'text/html');

  /* Times. What the server says is right, whatever this clock says. */
  let skew = 0;
  const readClock = from => { if (from.dataset.now) skew = Number(from.dataset.now) - Date.now(); };
  const two = (large, unit, small, subunit) => small === 0 ? large + unit : `${large}${unit} ${small}${subunit}`;
  function span(ms) {
    const s = Math.floor(ms / 1000);
    if (ms < 1000) return `${ms}ms`;
    if (s < 10) return `${s}.${Math.floor(ms % 1000 / 100)}s`;
    if (s < 60) return `${s}s`;
    if (s < 3600) return two(Math.floor(s / 60), 'm', s % 60, 's');
    if (s < 86400) return two(Math.floor(s / 3600), 'h', Math.floor(s % 3600 / 60), 'm');
    return two(Math.floor(s / 86400), 'd', Math.floor(s % 86400 / 3600), 'h');
  }
  function ago(ms) {
    const first = span(Math.max(0, Math.floor(ms / 1000) * 1000)).split(' ')[0];
    return first === '0ms' ? 'now' : `${first.replace('.0s', 's')} ago`;
  }
  const say = (node, text) => { if (node.textContent !== text) node.textContent = text; };
  function tick() {
    const now = Date.now() + skew;
    for (const node of document.querySelectorAll('[data-since]')) say(node, ago(now - Number(node.dataset.since)));
    for (const node of document.querySelectorAll('[data-until]')) {
      const left = Number(node.dataset.until) - now;
      say(node, left <= 0 ? 'overdue' : span(left < 10000 ? Math.floor(left / 1000) * 1000 || 1000 : left));
      node.classList.toggle('soon', left < 300000);
    }
  }

  /* News: the same page is fetched again and what differs is changed in place, so that focus, open folds and
     half-typed words stay. */
  const OURS = ['here', 'new', 'gone', 'soon'];
  const keyOf = node => node.nodeType === 1 ? node.dataset.key || node.id || '' : '';
  const isField = node => /^(INPUT|TEXTAREA|SELECT)$/.test(node.nodeName) && node.type !== 'hidden';
  function isTouched(node) {
    if (node.contains(document.activeElement)) return true;
    return [...node.querySelectorAll('input:not([type=hidden]), textarea')].some(field =>
      field.type === 'checkbox' ? field.checked !== field.defaultChecked : field.value !== field.defaultValue);
  }
  let moved = false;
  function morph(have, want) {
    if (have.nodeType !== 1) {
      if (have.nodeValue !== want.nodeValue) have.nodeValue = want.nodeValue;
      return;
    }
    const local = OURS.filter(name => have.classList.contains(name) && name !== 'gone');
    for (const { name } of [...have.attributes]) {
      if (!want.hasAttribute(name) && name !== 'open' && !(name === 'hidden' && have.dataset.shown) && name !== 'data-shown' && name !== 'disabled') have.removeAttribute(name);
    }
    for (const { name, value } of [...want.attributes]) {
      if (name === 'open' || (name === 'hidden' && have.dataset.shown)) continue;
      if (have.getAttribute(name) !== value) {
        if (name === 'value' && have.name === 'digest') asksAnew(have.closest('.card'));
        have.setAttribute(name, value);
      }
    }
    have.classList.add(...local);
    if (isField(have) && have.nodeName !== 'SELECT') return;
    if (have.nodeName === 'SELECT' && have === document.activeElement) return;
    children(have, want);
  }
  function children(have, want) {
    const wanted = new Set([...want.children].map(keyOf).filter(Boolean));
    for (const child of [...have.children]) {
      const key = keyOf(child);
      if (!key || wanted.has(key)) continue;
      moved = true;
      if (child.matches('.card, .group, .cluster') && isTouched(child)) {
        child.classList.add('gone');
        for (const button of child.querySelectorAll('button')) button.disabled = true;
      } else {
        child.remove();
      }
    }
    const known = new Map([...have.children].map(child => [keyOf(child), child]).filter(([key]) => key));
    let at = have.firstChild;
    const skip = () => { while (at && at.nodeType === 1 && at.classList.contains('gone') && !wanted.has(keyOf(at))) at = at.nextSibling; };
    for (const child of [...want.childNodes]) {
      skip();
      const key = keyOf(child);
      let same = key ? known.get(key) : at;
      if (same && (same.nodeName !== child.nodeName || (!key && keyOf(same)))) same = null;
      if (same) {
        if (same === at) at = at.nextSibling;
        else { have.insertBefore(same, at); moved = true; }
        morph(same, child);
      } else {
        const fresh = document.importNode(child, true);
        have.insertBefore(fresh, at);
        if (key) { moved = true; arrive(fresh); }
      }
    }
    skip();
    while (at) {
      const next = at.nextSibling;
      if (!(at.nodeType === 1 && at.classList.contains('gone'))) at.remove();
      at = next;
      skip();
    }
  }
  // What is asked is no longer what was looked at: whoever is about to press a key is to look again.
  function asksAnew(card) {
    moved = true;
    arrive(card);
    if (card && card.contains(document.activeElement) && document.activeElement.nodeName === 'BUTTON') document.activeElement.blur();
  }
  function arrive(node) {
    if (!node || !node.classList || !node.matches('.card, .line')) return;
    node.classList.add('new');
    setTimeout(() => node.classList.remove('new'), 1700);
  }

  const main = document.getElementById('main');
  const news = document.getElementById('news');
  const places = document.getElementById('places');
  const sign = document.getElementById('live');
  let held = null;
  // A button that slides away under the pointer is a wrong decision.
  const aiming = () => matchMedia('(hover: hover)').matches && document.querySelector('.decide:hover, .settle:hover, .batch:hover');
  function show(page, whole) {
    readClock(page.body);
    morph(places, page.getElementById('places'));
    if (!whole) { mind(); return; }
    if (aiming()) { held = page; news.hidden = false; mind(); return; }
    held = null;
    news.hidden = true;
    moved = false;
    morph(main, page.getElementById('main'));
    if (moved) {
      main.classList.add('settling');
      setTimeout(() => main.classList.remove('settling'), 450);
    }
    mind();
  }
  let fetching = false;
  let pending = null;
  async function refresh(whole) {
    if (fetching) { pending = pending || whole; return; }
    fetching = true;
    try {
      const response = await fetch(location.href, { headers: { Accept: 'text/html' }, cache: 'no-store' });
      const page = parse(await response.text());
      if (response.redirected || !page.getElementById('places')) { location.reload(); return; }
      show(page, whole);
    } catch { /* The server is away; the stream comes back when it does. */ }
    setTimeout(() => {
      fetching = false;
      if (pending !== null) { const whole = pending; pending = null; refresh(whole); }
    }, 400);
  }
  function hear(calls) {
    const watch = body.dataset.watch;
    refresh(watch === 'all' || (watch !== 'counts' && (calls === null || calls.includes(watch))));
  }

  /* One stream for all pages of this inbox: a browser allows few connections to one server. */
  const channel = 'BroadcastChannel' in window ? new BroadcastChannel('holdfast') : { postMessage() {} };
  function state(on) {
    sign.classList.toggle('on', on);
    say(sign, on ? 'live' : 'offline');
    sign.title = on ? 'Changes appear by themselves' : 'Changes are not shown by themselves';
  }
  channel.onmessage = ({ data }) => {
    if (data.ask) { if (stream) channel.postMessage({ on: stream.readyState === 1 }); return; }
    if ('on' in data) state(data.on);
    if ('calls' in data) hear(data.calls);
  };
  let stream = null;
  function listen() {
    stream = new EventSource('/events');
    const tell = (on, calls) => {
      state(on);
      channel.postMessage(calls === undefined ? { on } : { on, calls });
      if (calls !== undefined) hear(calls);
    };
    // Whatever came while nobody listened is found by looking.
    stream.onopen = () => tell(true, null);
    stream.addEventListener('news', event => tell(true, JSON.parse(event.data).calls));
    stream.onerror = () => {
      tell(false);
      if (stream.readyState === EventSource.CLOSED) setTimeout(() => { listen(); refresh(false); }, 3000);
    };
    return new Promise(() => {});
  }
  if (places) {
    if (navigator.locks) {
      navigator.locks.request('holdfast', listen);
      channel.postMessage({ ask: true });
    } else {
      listen();
    }
    news.querySelector('button').addEventListener('click', () => held && apply());
    document.addEventListener('pointermove', () => held && !aiming() && apply(), { passive: true });
  }
  function apply() {
    const page = held;
    held = null;
    news.hidden = true;
    moved = false;
    morph(main, page.getElementById('main'));
    main.classList.add('settling');
    setTimeout(() => main.classList.remove('settling'), 450);
    mind();
  }

  /* What is only useful with a script. */
  function mind() {
    tick();
    if (!places) return;
    const waiting = Number(places.dataset.waiting);
    document.title = document.title.replace(/^\(\d+\+?\) /, '');
    if (waiting) document.title = `(${waiting}) ${document.title}`;
    for (const label of document.querySelectorAll('.batch .all')) { label.hidden = false; label.dataset.shown = '1'; }
    for (const form of document.querySelectorAll('form.batch')) {
      const picks = [...form.elements].filter(field => field.name === 'pick');
      const ticked = picks.filter(field => field.checked).length;
      for (const button of form.querySelectorAll('button')) {
        button.disabled = ticked === 0;
        say(button, `${button.value === 'approve' ? 'Approve' : 'Reject'} ${ticked || 'ticked'}`);
      }
      const all = form.querySelector('[data-all]');
      all.checked = ticked > 0 && ticked === picks.length;
      all.indeterminate = ticked > 0 && ticked < picks.length;
    }
  }
  document.addEventListener('change', event => {
    const field = event.target;
    if (field.dataset.all) {
      for (const pick of document.getElementById(field.dataset.all).elements) if (pick.name === 'pick') pick.checked = field.checked;
    }
    if (field.form && 'auto' in field.form.dataset && field.nodeName === 'SELECT') field.form.requestSubmit();
    mind();
  });
  document.addEventListener('submit', event => {
    if (event.target.method !== 'post') {
      // Empty fields only make the address long.
      for (const field of event.target.elements) if (field.name && !field.value) field.disabled = true;
      return;
    }
    if (event.target.dataset.sent) { event.preventDefault(); return; }
    event.target.dataset.sent = '1';
  });
  window.addEventListener('pageshow', () => {
    for (const form of document.querySelectorAll('form')) {
      delete form.dataset.sent;
      if (form.method !== 'post') for (const field of form.elements) if (field.name) field.disabled = false;
    }
    // What was ticked the browser may have brought back.
    mind();
  });

  /* Keys. */
  const cards = () => [...document.querySelectorAll('article.card, a.line')];
  const current = () => document.activeElement && document.activeElement.closest('article.card, a.line');
  function step(by) {
    const all = cards();
    const at = all.indexOf(current());
    const next = all[at < 0 ? (by > 0 ? 0 : all.length - 1) : at + by];
    if (next) { next.focus(); next.scrollIntoView({ block: 'nearest' }); }
  }
  const target = selector => (current() || document).querySelector(selector);
  const actions = {
    j: () => step(1),
    k: () => step(-1),
    o: () => { const link = target('a.open'); if (link) link.click(); },
    a: () => { const button = target('.approve button'); if (button) button.focus(); },
    r: () => {
      const fold = target('details.reject');
      if (fold) { fold.open = true; fold.querySelector('input[name=reason]').focus(); }
    },
    x: () => { const pick = target('input[name=pick]'); if (pick) pick.click(); },
    '/': () => { const field = document.querySelector('.filters input, .filters select'); if (field) field.focus(); },
    '?': () => { const keys = document.getElementById('keys'); if (keys) keys.showModal(); },
  };
  document.addEventListener('keydown', event => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.isComposing || document.querySelector('dialog[open]')) return;
    if (isField(event.target) && event.target.type !== 'checkbox') {
      if (event.key === 'Escape') event.target.blur();
      return;
    }
    const place = places && /^[1-5]$/.test(event.key) && places.querySelectorAll('a')[Number(event.key) - 1];
    if (place) { place.click(); return; }
    const action = places && Object.hasOwn(actions, event.key) && actions[event.key];
    if (action) { event.preventDefault(); action(); }
  });

  readClock(body);
  // A reload is not to tell again what was told.
  const address = new URL(location.href);
  if (address.searchParams.has('flash')) {
    address.searchParams.delete('flash');
    history.replaceState(null, '', address);
  }
  mind();
  setInterval(tick, 1000);
})();
