// The objects with their timelines: one row per object, and a ruler on which the shown frame can be moved.
import { chip, clock, iconButton, make, makeSvg } from './dom.js';
import { OBJECT_EFFECTS } from './compositor.js';

const PAGE_FRAMES = 10;

export class Rail {
  constructor(session, player) {
    Object.assign(this, { session, player, rows: new Map() });
    this.ruler = this.makeTrack('Position in the video', null);
    this.rulerRow = make('div', { class: 'up-row up-ruler' },
      this.clockLabel = make('span', { class: 'up-row-head up-clock' }), this.ruler);
    this.list = make('ul', { class: 'up-rows', 'aria-label': 'Objects' });
    this.newButton = make('button', {
      type: 'button', class: 'up-new', 'aria-pressed': 'false', title: 'The next click begins a new object (N)', onclick: () => session.select(0),
    }, '+ New object');
    this.hint = make('p', { class: 'up-hint' });
    this.element = make('section', { class: 'up-rail', 'aria-label': 'Objects and timelines' }, this.rulerRow, this.list,
      make('div', { class: 'up-rail-foot' }, this.newButton, this.hint));
    session.addEventListener('change', () => this.refresh());
    session.addEventListener('masked', () => this.refreshTracks());
    player.addEventListener('frame', () => this.movePlayhead());
  }

  makeTrack(label, id) {
    const track = make('div', {
      class: 'up-track', role: 'slider', tabindex: '0', 'aria-label': label, 'aria-valuemin': '0',
      onkeydown: (event) => this.onKey(event, id),
      onpointerdown: (event) => { track.setPointerCapture(event.pointerId); this.seekTo(event, track); },
      onpointermove: (event) => { if (track.hasPointerCapture(event.pointerId)) this.seekTo(event, track); },
    }, makeSvg('svg', { preserveAspectRatio: 'none', 'aria-hidden': 'true' }), make('i', { class: 'up-playhead' }));
    return track;
  }

  seekTo(event, track) {
    const box = track.getBoundingClientRect();
    const part = Math.max(0, Math.min(1, (event.clientX - box.left) / box.width));
    this.goTo(Math.min(this.player.lastFrame, Math.floor(part * (this.player.lastFrame + 1))));
  }

  goTo(frame) {
    this.player.pause();
    this.player.seek(frame);
  }

  onKey(event, id) {
    const { player } = this, shown = player.wanted ?? player.frame;
    const moves = {
      ArrowLeft: shown - 1, ArrowDown: shown - 1, ArrowRight: shown + 1, ArrowUp: shown + 1, Home: 0, End: player.lastFrame,
      PageDown: shown - PAGE_FRAMES, PageUp: shown + PAGE_FRAMES,
    };
    if (event.key in moves) this.goTo(moves[event.key]);
    else if (event.key === ' ') player.toggle();
    else if (event.key === 'Enter' && id) this.jump(id);
    else return;
    event.preventDefault();
  }

  /** Show an object: the shown frame if it is visible there, else the first frame on which it is. */
  jump(id) {
    this.session.select(id);
    const runs = this.session.presence.runsOf(id), { frame } = this.player;
    if (runs.length && !runs.some(([first, last]) => first <= frame && frame <= last)) this.goTo(runs[0][0]);
  }

  refresh() {
    const { session, player } = this, info = session.video;
    if (!info) return;
    const objects = session.state.objects;
    for (const [id, row] of this.rows) {
      if (!objects.some((item) => item.id === id)) {
        row.element.remove();
        this.rows.delete(id);
      }
    }
    objects.forEach((item, index) => {
      if (!this.rows.has(item.id)) this.rows.set(item.id, this.makeRow(item));
      const { element } = this.rows.get(item.id);
      if (this.list.children[index] !== element) this.list.insertBefore(element, this.list.children[index] || null);
      this.refreshRow(item);
    });
    const isReadOnly = session.isReadOnly;
    this.rulerRow.hidden = info.is_image;
    this.newButton.setAttribute('aria-pressed', String(session.selected === 0));
    this.newButton.hidden = isReadOnly || !objects.length;
    this.hint.textContent = isReadOnly ? 'This link only shows the session.' : hintText(session, info.is_image);
    this.refreshTracks();
    this.movePlayhead();
    this.element.style.setProperty('--up-frames', String(player.lastFrame + 1));
  }

  makeRow(item) {
    const { session } = this, { id } = item;
    const row = {};
    row.thumbnail = make('img', { alt: '', width: 34, height: 34, loading: 'lazy', class: 'up-thumbnail' });
    row.chip = chip(id, item.color, { type: 'button', 'aria-label': `Select object ${id}`, title: 'Show this object and add clicks to it', onclick: () => this.jump(id) }, 'button');
    row.name = make('input', {
      class: 'up-name', maxlength: session.state.limits?.max_name_chars || 60, placeholder: session.isReadOnly ? 'No name' : 'Add a name', 'aria-label': `Name of object ${id}`,
      onchange: () => session.change('rename', { object_id: id, name: row.name.value }),
      onkeydown: (event) => { if (event.key === 'Enter') row.name.blur(); },
    });
    row.state = make('small', { class: 'up-row-state' });
    row.effect = make('select', {
      class: 'up-effect', 'aria-label': `Look of object ${id}`, title: 'How this object is shown',
      onchange: () => { this.player.compositor.objects[id] = row.effect.value; this.player.redraw(); },
    }, ...Object.entries(OBJECT_EFFECTS).map(([value, text]) => make('option', { value }, text)));
    row.remove = iconButton('remove', `Remove object ${id}`, { onclick: () => session.change('forget', { object_id: id }) });
    row.track = this.makeTrack(`Timeline of object ${id}`, id);
    row.element = make('li', { class: 'up-row', 'data-id': id },
      make('div', { class: 'up-row-head' }, row.chip, row.thumbnail, make('span', { class: 'up-row-text' }, row.name, row.state), row.effect, row.remove),
      row.track);
    return row;
  }

  refreshRow(item) {
    const { session, player } = this, row = this.rows.get(item.id), isImage = session.video.is_image;
    row.element.classList.toggle('up-row-selected', item.id === session.selected);
    row.chip.setAttribute('aria-pressed', String(item.id === session.selected));
    if (document.activeElement !== row.name) row.name.value = item.name === `object ${item.id}` ? '' : item.name;
    row.name.title = item.name;
    row.name.readOnly = session.isReadOnly;
    row.remove.hidden = session.isReadOnly;
    row.effect.value = player.compositor.effectOf(item.id);
    row.track.hidden = isImage;
    row.state.textContent = stateText(session, item, isImage);
    row.state.title = item.low_confidence;
    const address = session.api.url(`thumbnail/${item.id}.jpg?rev=${item.num_known_frames}-${(item.prompts || []).length}`);
    if (row.thumbnail.src !== address) row.thumbnail.src = address;
  }

  refreshTracks() {
    if (this.isScheduled) return;
    this.isScheduled = true;
    requestAnimationFrame(() => {
      this.isScheduled = false;
      const info = this.session.video;
      if (!info || info.is_image) return;
      for (const item of this.session.state.objects) this.drawTrack(item, info.num_frames);
      this.drawRuler(info.num_frames);
    });
  }

  drawTrack(item, numFrames) {
    const row = this.rows.get(item.id), svg = row?.track.querySelector('svg');
    if (!svg) return;
    const { session } = this;
    svg.setAttribute('viewBox', `0 0 ${numFrames} 10`);
    const bar = (runs, attributes) => runs.map(([first, last]) => makeSvg('rect', { x: first, y: 0, width: last - first + 1, height: 10, ...attributes }));
    const marks = (item.prompts || []).map((mark) => makeSvg('rect', { x: mark.frame, y: 0, width: Math.max(1, numFrames / 150), height: 10, class: 'up-track-prompt' }));
    svg.replaceChildren(...bar(session.presence.runsOf(item.id, 1), { class: 'up-track-known' }), ...bar(session.presence.runsOf(item.id), { fill: item.color }), ...marks);
    row.track.setAttribute('aria-label', `Timeline of object ${item.id}: ${spoken(session.presence.runsOf(item.id))}`);
  }

  drawRuler(numFrames) {
    const { first, last } = this.session.range, svg = this.ruler.querySelector('svg');
    svg.setAttribute('viewBox', `0 0 ${numFrames} 10`);
    const hasRange = first !== null || last !== null, from = first ?? 0, to = last ?? numFrames - 1;
    svg.replaceChildren(...(hasRange ? [makeSvg('rect', { x: from, y: 0, width: to - from + 1, height: 10, class: 'up-track-range' })] : []));
  }

  movePlayhead() {
    const { player, session } = this;
    if (!player.info || player.info.is_image) return;
    const { frame, lastFrame } = player;
    this.element.style.setProperty('--up-at', `${(100 * (frame + 0.5)) / (lastFrame + 1)}%`);
    this.clockLabel.textContent = `${clock(player.timeOf(frame))} / ${clock(player.info.duration_seconds || player.timeOf(lastFrame))}`;
    const now = performance.now();
    // Attributes for screen readers need not follow every frame of playback.
    if (player.isPlaying && now - (this.lastSpoken || 0) < 500) return;
    this.lastSpoken = now;
    for (const [id, track] of [[0, this.ruler], ...[...this.rows].map(([key, row]) => [key, row.track])]) {
      const presence = id ? ['not known', 'not visible', 'visible'][session.presence.at(id, frame)] : '';
      track.setAttribute('aria-valuemax', String(lastFrame));
      track.setAttribute('aria-valuenow', String(frame));
      track.setAttribute('aria-valuetext', `frame ${frame}${presence ? `, ${presence}` : ''}`);
    }
  }
}

function stateText(session, item, isImage) {
  if (isImage) return session.presence.runsOf(item.id).length ? (item.low_confidence && 'unsure') : 'no mask yet';
  if (item.has_pending_prompts && !session.work) return 'not followed yet';
  const count = session.presence.runsOf(item.id).reduce((sum, [first, last]) => sum + last - first + 1, 0);
  const doubt = item.low_confidence ? ', unsure' : '';
  const total = session.video.num_frames;
  return `${count === total ? 'all' : `${count} of`} ${total} frames${doubt}`;
}

function hintText(session, isImage) {
  if (!session.state.objects.length) return `Click an object in the ${isImage ? 'image' : 'video'}, or ask about it.`;
  if (session.selected) return `Clicks refine [${session.selected}]; “Not this” excludes.`;
  return 'The next click begins a new object.';
}

function spoken(runs) {
  if (!runs.length) return 'visible on no known frame';
  return `visible on frames ${runs.slice(0, 8).map(([first, last]) => `${first} to ${last}`).join(', ')}${runs.length > 8 ? ' and more' : ''}`;
}
