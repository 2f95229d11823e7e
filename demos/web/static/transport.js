// The bar below the picture: play, step, time, sound; and Follow, Stop and the progress of work.
import { clock, icon, iconButton, make } from './dom.js';
import { attachMenu } from './menu.js';

const PREVIEW_PAUSE_MS = 400;

export class Transport {
  constructor(session, player) {
    this.session = session;
    this.player = player;
    this.playButton = iconButton('play', 'Play (Space)', { onclick: () => player.toggle(), class: 'up-play' });
    this.steps = [
      iconButton('previous', 'Previous frame', { onclick: () => player.step(-1) }),
      iconButton('next', 'Next frame', { onclick: () => player.step(1) }),
    ];
    this.soundButton = iconButton('sound', 'Sound', { onclick: () => { player.video.muted = !player.video.muted; } });
    this.clock = make('span', { class: 'up-time-clock' });
    this.number = make('span', {});
    this.time = make('output', { class: 'up-time' }, this.clock, this.number);
    this.status = make('span', { class: 'up-work-status', role: 'status' });
    this.bar = make('progress', { class: 'up-progress', max: '1', value: '0', 'aria-label': 'Progress' });
    this.stopButton = make('button', { type: 'button', class: 'up-stop', onclick: () => session.stop() }, 'Stop');
    this.followButton = make('button', { type: 'button', class: 'up-follow', onclick: () => this.follow() }, 'Follow');
    this.moreButton = iconButton('more', 'More ways to follow', { class: 'up-follow-more' });
    this.playback = make('div', { class: 'up-playback' }, this.playButton, ...this.steps, this.time, this.soundButton);
    this.followGroup = make('div', { class: 'up-follow-group up-menu-anchor' }, this.followButton, this.moreButton, this.makeOptions());
    this.element = make('div', { class: 'up-transport' }, this.bar, this.playback,
      make('div', { class: 'up-work' }, this.status, this.stopButton, this.followGroup));
    session.addEventListener('change', () => this.refresh());
    session.addEventListener('masked', (event) => this.showProgress(event.detail));
    session.addEventListener('worked', () => this.endWork());
    player.addEventListener('frame', () => this.refreshTime());
    player.addEventListener('state', () => this.refresh());
    this.lastShown = 0;
  }

  makeOptions() {
    const radio = (value, text, isChecked) => make('label', {}, make('input', { type: 'radio', name: 'up-direction', value, checked: isChecked }), text);
    this.directions = make('fieldset', {}, make('legend', {}, 'Direction'), radio('both', 'Both', true), radio('forward', 'Forward'), radio('backward', 'Backward'));
    this.stride = make('input', { type: 'number', min: '1', max: '60', value: '1', id: 'up-stride' });
    this.rangeText = make('span', { class: 'up-range-text' });
    const mark = (end, text) => make('button', { type: 'button', onclick: () => this.markRange(end) }, text);
    this.fromHere = make('button', { type: 'button', class: 'up-from-here', onclick: () => this.followFromHere() }, 'Follow from here');
    const panel = make('div', { class: 'up-menu', hidden: true },
      this.directions,
      make('div', { class: 'up-menu-row' }, make('span', {}, 'Range'), this.rangeText),
      make('div', { class: 'up-menu-row' }, mark('first', 'Start here'), mark('last', 'End here'), mark(null, 'Whole video')),
      make('label', { class: 'up-menu-row', for: 'up-stride' }, 'Every N-th frame', this.stride),
      this.fromHere);
    this.closeMenu = attachMenu(this.moreButton, panel);
    return panel;
  }

  markRange(end) {
    if (end) this.session.range[end] = this.player.frame;
    else this.session.range = { first: null, last: null };
    const { first, last } = this.session.range;
    if (first !== null && last !== null && first > last) this.session.range = { first: last, last: first };
    this.session.changed();
  }

  get hasPending() {
    return this.session.state.objects.some((item) => item.has_pending_prompts);
  }

  follow() {
    if (this.hasPending) this.session.follow(this.rangeOptions());
    else this.followFromHere();
  }

  followFromHere() {
    this.closeMenu();
    this.session.follow({ ...this.rangeOptions(), frame: this.player.frame });
  }

  rangeOptions() {
    const stride = Math.max(1, Math.min(60, Math.round(Number(this.stride.value)) || 1));
    return { ...this.session.range, stride, direction: this.directions.querySelector('input:checked').value };
  }

  /** Show the frame that the model has just finished, until the user chooses another one. */
  showProgress(frame) {
    const { player } = this, now = performance.now();
    if (!this.preview) this.preview = { start: player.frame, numMoves: player.numMoves };
    if (player.numMoves !== this.preview.numMoves || now - this.lastShown < PREVIEW_PAUSE_MS) return;
    this.lastShown = now;
    player.showPicture(frame);
  }

  endWork() {
    const { player, preview } = this;
    if (preview && preview.numMoves === player.numMoves) player.seek(preview.start);
    this.preview = null;
    this.refresh();
  }

  refresh() {
    const { session, player } = this, { work } = session, info = session.video;
    if (!info) return;
    const isPlaying = player.isPlaying || Boolean(player.timer);
    this.playButton.replaceChildren(icon(isPlaying ? 'pause' : 'play'));
    this.playButton.setAttribute('aria-label', isPlaying ? 'Pause (Space)' : 'Play (Space)');
    this.playback.hidden = info.is_image;
    this.soundButton.hidden = !info.has_sound || !player.hasVideo;
    this.soundButton.replaceChildren(icon(player.video.muted ? 'muted' : 'sound'));
    this.soundButton.setAttribute('aria-label', player.video.muted ? 'Sound on' : 'Sound off');
    const isBusy = session.isBusy;
    this.element.hidden = info.is_image && !isBusy;
    this.stopButton.hidden = !isBusy || session.isReadOnly;
    this.followGroup.hidden = isBusy || session.isReadOnly || info.is_image || !session.state.objects.length;
    this.followButton.classList.toggle('up-primary', this.hasPending);
    this.followButton.replaceChildren('Follow', ...(this.hasPending ? [] : [make('span', { class: 'up-from-here-text' }, 'from here')]));
    this.followButton.setAttribute('aria-label', this.hasPending ? 'Follow' : 'Follow from here');
    this.fromHere.hidden = !this.hasPending;
    this.bar.classList.toggle('up-progress-on', isBusy);
    this.element.classList.toggle('up-busy', isBusy);
    if (work?.total) Object.assign(this.bar, { max: work.total, value: work.done });
    else this.bar.removeAttribute('value');
    if (!isBusy) this.bar.value = 0;
    this.status.textContent = workText(work, session.state.is_busy, info.is_image);
    const { first, last } = session.range;
    this.rangeText.textContent = first === null && last === null ? 'whole video' : `frames ${first ?? 0} to ${last ?? player.lastFrame}`;
    this.refreshTime();
  }

  refreshTime() {
    const { player } = this;
    if (!player.info || player.info.is_image) return;
    this.clock.textContent = `${clock(player.timeOf(player.frame))} · frame `;
    this.number.textContent = `${player.frame} / ${player.lastFrame}`;
    this.time.dataset.frame = String(player.frame);
  }
}

function workText(work, isBusy, isImage) {
  if (!work) return isBusy ? 'Work is in progress in another tab' : '';
  if (isImage || !work.total) return work.status;
  const left = work.secondsLeft === null || work.secondsLeft === undefined ? '' : `, ${duration(work.secondsLeft)} left`;
  return `${work.status.replace('…', '')}: ${work.done} of ${work.total} frames${left}`;
}

function duration(seconds) {
  const whole = Math.max(1, Math.round(seconds));
  return whole < 90 ? `${whole} s` : `${Math.round(whole / 60)} min`;
}
