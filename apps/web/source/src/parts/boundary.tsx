// What is shown where a part of the page broke, or could not be fetched.
import { Component, type ReactNode } from "react";
import { get } from "../api";
import { Notice } from "./bits";

interface Props {
  /** Another place starts anew. */
  place: string;
  gone: boolean;
  children: ReactNode;
}

interface State {
  thrown: Error | null;
  place: string;
}

export class Boundary extends Component<Props, State> {
  override state: State = { thrown: null, place: this.props.place };

  static getDerivedStateFromError(thrown: Error): Partial<State> {
    return { thrown };
  }

  static getDerivedStateFromProps(props: Props, state: State): Partial<State> | null {
    return props.place === state.place ? null : { place: props.place, thrown: null };
  }

  override componentDidCatch(): void {
    // Whether the server is gone shows with the next request.
    get("/api/me").catch(() => undefined);
  }

  override componentDidUpdate(before: Props): void {
    // A part that could not be fetched is fetched again with the page only.
    if (this.state.thrown && before.gone && !this.props.gone) window.location.reload();
  }

  override render(): ReactNode {
    const { thrown } = this.state;
    if (!thrown) return this.props.children;
    return (
      <div className="page">
        <h1 className="unseen">Broken</h1>
        <Notice failure={{ code: "page", message: `This part of the page broke: ${thrown.message}`, todo: "" }}>
          <button type="button" className="button" onClick={() => window.location.reload()}>
            Reload
          </button>
        </Notice>
      </div>
    );
  }
}
