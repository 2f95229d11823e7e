// Menus of the workspace: background, downloads, links, deletion.
import { icon, make } from './dom.js';
import { attachMenu } from './menu.js';
import { BACKGROUND_EFFECTS } from './compositor.js';
import { ServerError } from './api.js';

function chevron() {
  const sign = icon('more');
  sign.classList.add('up-chevron');
  return sign;
}

export class LookMenu {
  constructor(session, player) {
    const choose = (value) => {
      player.compositor.background = value;
      player.canvas.classList.toggle('up-checkered', value === 'transparent');
      player.redraw();
    };
    this.choices = Object.entries(BACKGROUND_EFFECTS).map(([value, text]) => make('label', {},
      make('input', { type: 'radio', name: 'up-background', value, checked: value === 'keep', onchange: () => choose(value) }), text));
    const panel = make('div', { class: 'up-menu', hidden: true },
      make('fieldset', {}, make('legend', {}, 'Background'), ...this.choices),
      make('p', { class: 'up-fine' }, 'The look of each object is chosen in its row.'));
    const button = make('button', { type: 'button', 'aria-label': 'Effects' }, icon('effects'), make('span', { class: 'up-button-text' }, 'Effects'), chevron());
    attachMenu(button, panel);
    this.element = make('div', { class: 'up-menu-anchor' }, button, panel);
  }
}

export class ExportMenu {
  constructor(session, player) {
    Object.assign(this, { session, player });
    this.status = make('p', { class: 'up-fine', role: 'status', hidden: true });
    this.bar = make('progress', { class: 'up-export-bar', hidden: true, 'aria-label': 'Progress of the download' });
    this.items = make('div', { class: 'up-menu-list' });
    const panel = make('div', { class: 'up-menu', hidden: true }, this.items, this.bar, this.status);
    const button = make('button', { type: 'button' }, icon('download'), make('span', { class: 'up-button-text' }, 'Download'), chevron());
    button.setAttribute('aria-label', 'Download');
    attachMenu(button, panel, { onOpen: () => this.refresh() });
    this.element = make('div', { class: 'up-menu-anchor up-download' }, button, panel);
  }

  refresh() {
    const { session } = this, hasMasks = session.state.objects.some((item) => session.presence.runsOf(item.id).length);
    const isImage = session.video?.is_image, isCutOut = this.player.compositor.background === 'transparent';
    const item = (text, form, body) => make('button', { type: 'button', onclick: () => this.download(body()) }, text, make('small', {}, form));
    const video = session.video?.has_sound ? 'MP4 with sound' : 'MP4', media = isImage ? 'PNG' : isCutOut ? 'WebM with alpha' : video;
    this.items.replaceChildren(...(hasMasks ? [
      item(isImage ? 'Image as shown' : 'Video as shown', media, () => this.effectsBody()),
      item(isImage ? 'Image with masks and labels' : 'Video with masks and labels', isImage ? 'PNG' : video, () => ({ kind: 'overlay' })),
      item('Masks', 'PNG files in a ZIP', () => ({ kind: 'masks' })),
      item('Annotations', 'COCO, JSON', () => ({ kind: 'coco' })),
    ] : []), item('Session, to open again later', 'ZIP', () => ({ kind: 'session' })));
  }

  effectsBody() {
    const { compositor } = this.player;
    const objects = Object.fromEntries(this.session.state.objects.map((item) => [item.id, compositor.effectOf(item.id)]));
    return { kind: 'effects', background: compositor.background, objects, default: 'keep' };
  }

  async download(body) {
    this.say('Preparing the file…');
    for (const button of this.items.children) button.disabled = true;
    try {
      const name = await this.session.export(body, (line) => {
        if (line.state === 'waiting') this.say(`Waiting: number ${line.position} in the queue`);
        else if (line.state === 'exporting') this.say(`Writing frame ${line.done} of ${line.total}`, line);
      });
      const link = make('a', { href: this.session.api.url(`download/${encodeURIComponent(name)}`), download: name });
      link.click();
      this.say(`${name} was downloaded.`);
    } catch (error) {
      if (!(error instanceof ServerError)) throw error;
      this.say(error.message);
    }
    for (const button of this.items.children) button.disabled = false;
  }

  say(text, { done = 0, total = 0 } = {}) {
    this.status.textContent = text;
    this.status.hidden = !text;
    this.bar.hidden = !total;
    if (total) Object.assign(this.bar, { max: total, value: done });
  }
}

export class ShareMenu {
  constructor(session) {
    this.session = session;
    this.links = make('div', { class: 'up-menu-list' });
    this.remove = make('div', { class: 'up-menu-row' });
    const panel = make('div', { class: 'up-menu', hidden: true }, this.links, this.remove);
    const button = make('button', { type: 'button', 'aria-label': 'Share and delete' }, icon('share'), make('span', { class: 'up-button-text' }, 'Share'), chevron());
    attachMenu(button, panel, { onOpen: () => this.refresh() });
    this.element = make('div', { class: 'up-menu-anchor' }, button, panel);
  }

  async refresh() {
    this.askToDelete(false);
    await this.session.attempt(async () => {
      const links = await this.session.api.get('links');
      const row = (label, text, query) => {
        const input = make('input', { readonly: true, value: new URL(query, document.baseURI).href, 'aria-label': label, onfocus: () => input.select() });
        const copy = make('button', { type: 'button', onclick: () => this.copy(input, copy) }, 'Copy');
        return make('div', { class: 'up-link' }, make('b', {}, label), make('small', {}, text), make('div', { class: 'up-menu-row' }, input, copy));
      };
      this.links.replaceChildren(
        row('Link to show', 'Others see the video, the objects and the answers, and can change nothing.', links.view),
        ...(links.private ? [row('Private link to go on', 'Anyone with it can change and delete everything: keep it secret.', links.private)] : []));
    });
  }

  async copy(input, button) {
    input.select();
    // The clipboard is available on https and localhost pages only; elsewhere the selected text can be copied by key.
    if (navigator.clipboard) await navigator.clipboard.writeText(input.value).then(() => { button.textContent = 'Copied'; }, () => {});
  }

  askToDelete(isAsking) {
    if (this.session.isReadOnly) {
      this.remove.replaceChildren();
      return;
    }
    const button = (text, action, classes = '') => make('button', { type: 'button', class: classes, onclick: action }, text);
    this.remove.replaceChildren(...(isAsking
      ? [make('span', {}, 'Delete the video, the objects and the conversation now?'),
        button('Delete', () => this.session.delete(), 'up-danger'), button('Keep', () => this.askToDelete(false))]
      : [button('Delete everything…', () => this.askToDelete(true), 'up-danger')]));
  }
}
