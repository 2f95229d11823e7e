// Questions and answers, and the bar to ask.
import { chip, make } from './dom.js';

const REFERENCE = /\[(\d{1,4})\]/g;

/** Return the nodes of a text, with every `[id]` as a button on the color of its masks. */
export function textNodes(text, { colorOf, nameOf, onJump }) {
  const nodes = [];
  let end = 0;
  for (const found of text.matchAll(REFERENCE)) {
    const id = Number(found[1]), color = colorOf(id);
    nodes.push(text.slice(end, found.index));
    if (color) {
      const name = nameOf(id);
      nodes.push(chip(id, color, {
        type: 'button', title: name || `Object ${id}`, 'aria-label': `Show object ${id}${name ? `, ${name}` : ''}`, onclick: () => onJump(id),
      }, 'button'));
    } else nodes.push(found[0]);
    end = found.index + found[0].length;
  }
  nodes.push(text.slice(end));
  return nodes.filter((node) => node !== '');
}

export class Conversation {
  /** `actions` has `ask(text)` and `segment(text)`, which return whether they succeeded, and `jump(id)`. */
  constructor(session, actions, { placeholder, canSegment = true, label = 'Question or phrase' }) {
    Object.assign(this, { session, actions });
    this.turns = make('div', { class: 'up-turns', 'aria-live': 'polite', role: 'log', 'aria-label': 'Conversation', tabindex: '0' });
    this.question = make('textarea', {
      rows: 1, class: 'up-question', 'aria-label': label, placeholder, maxlength: 2000, enterkeyhint: 'send',
      onkeydown: (event) => this.onKey(event), oninput: () => this.fit(),
    });
    this.askButton = make('button', { type: 'submit', class: 'up-ask' }, 'Ask');
    this.segmentButton = make('button', {
      type: 'button', class: 'up-segment', title: 'Find and follow what a phrase such as “the blue circle” names', onclick: () => this.send('segment'),
    }, 'Find');
    this.segmentButton.hidden = !canSegment;
    this.error = make('p', { class: 'up-error', role: 'alert', hidden: true });
    this.form = make('form', { class: 'up-ask-bar', onsubmit: (event) => { event.preventDefault(); this.send('ask'); } },
      this.question, this.askButton, this.segmentButton);
    this.element = make('section', { class: 'up-talk', 'aria-label': 'Questions' }, this.turns, this.error, this.form);
    session.addEventListener('change', () => this.refresh());
    session.addEventListener('message', ({ detail }) => { if (detail.isError && detail.field === 'question') this.showError(detail.text); });
  }

  onKey(event) {
    if (event.key !== 'Enter' || event.shiftKey || event.isComposing) return;
    event.preventDefault();
    this.send('ask');
  }

  fit() {
    this.question.style.height = 'auto';
    this.question.style.height = `${Math.min(120, this.question.scrollHeight + 2)}px`;
  }

  async send(method) {
    const text = this.question.value.trim();
    this.showError('');
    if (!text) {
      this.question.focus();
      return;
    }
    this.question.value = '';
    this.fit();
    const isDone = await this.actions[method](text);
    // A question that was refused can be changed and sent again.
    if (!isDone && !this.question.value) this.question.value = text;
    this.fit();
  }

  showError(text) {
    this.error.textContent = text;
    this.error.hidden = !text;
  }

  refresh() {
    const { session } = this, { conversation } = session.state, { work } = session;
    this.form.hidden = session.isReadOnly;
    this.askButton.disabled = this.segmentButton.disabled = session.isBusy;
    const rows = conversation.map((turn) => ({ ...turn, status: '' }));
    if (work?.question) rows.push({ question: work.question, answer: work.text, status: work.status });
    const options = { colorOf: (id) => session.object(id)?.color, nameOf: (id) => session.nameOf(id), onJump: (id) => this.actions.jump(id) };
    const key = JSON.stringify([rows, session.state.objects.map((item) => [item.id, item.name])]);
    if (key === this.shownKey) return;
    this.shownKey = key;
    this.turns.replaceChildren(...rows.flatMap((row) => [
      make('div', { class: 'up-turn up-asked' }, ...textNodes(row.question, options)),
      make('div', { class: 'up-turn up-answered' }, ...textNodes(row.answer, options), row.status ? make('span', { class: 'up-status' }, row.status) : null),
    ]));
    this.turns.hidden = !rows.length;
    this.turns.scrollTop = this.turns.scrollHeight;
  }
}
