// @ts-check
/** What a drop or a paste carries. */

import { t } from "../lib/words.mjs";
import { Refused } from "./host.mjs";

/** @typedef {{file: Blob, name: string}} Named */
/** @typedef {{board: string, slot: string, entry: import("../lib/board_state.mjs").Entry}} Lifted a picture that is dragged from a slot */

const SLOT = "application/x-gloria-slot";
const PICTURE = /\.(png|jpe?g|webp|gif|bmp|tiff?|avif|svg)$/i;
const VIDEO = /\.(mp4|webm|mov|mkv|m4v|avi)$/i;

/** @param {Named} named */
export const isPicture = ({ file, name }) => file.type.startsWith("image/") || PICTURE.test(name);
/** @param {Named} named */
export const isVideo = ({ file, name }) => file.type.startsWith("video/") || VIDEO.test(name);
/** @param {Named} named */
export const isCharacter = ({ name }) => /\.gloria$/i.test(name);

/**
 * Write a slot's picture into a drag.
 * @param {DataTransfer} transfer
 * @param {Lifted} lifted
 * @param {string} url of the picture, for whoever else it is dropped on.
 */
export function lift(transfer, lifted, url) {
  transfer.setData(SLOT, JSON.stringify(lifted));
  transfer.setData("text/uri-list", url);
  transfer.effectAllowed = "copyMove";
}

/**
 * Return the picture that was dragged from a slot of a board; null where it came from elsewhere.
 * @param {DataTransfer} transfer
 * @returns {Lifted | null}
 */
export function lifted(transfer) {
  const text = transfer.getData(SLOT);
  return text ? JSON.parse(text) : null;
}

/**
 * Tell whether a drag may hold something for the board.
 * @param {DataTransfer | null} transfer
 */
export function mayHold(transfer) {
  return [SLOT, "Files", "text/uri-list"].some((type) => transfer?.types.includes(type));
}

/**
 * Return the path below the input folder where the address of a dragged picture names one there.
 * @param {string} address
 * @param {string} origin of the page.
 * @returns {string | null}
 */
export function pathOf(address, origin) {
  if (!URL.canParse(address, origin)) return null;
  const url = new URL(address, origin);
  if (url.origin !== origin || !/\/view$/.test(url.pathname) || url.searchParams.get("type") !== "input") return null;
  const name = url.searchParams.get("filename");
  return name && [url.searchParams.get("subfolder"), name].filter(Boolean).join("/");
}

/**
 * Return the files of a drop or a paste. Must be called at once: a transfer is empty after its event.
 * @param {DataTransfer} transfer
 * @returns {{files: Named[], address: string | null}} an address where a picture of a page was dragged.
 */
export function contents(transfer) {
  const files = [...transfer.files].map((file) => ({ file, name: file.name || "pasted.png" }));
  const [address] = transfer.getData("text/uri-list").split(/\r?\n/).filter((line) => line && !line.startsWith("#"));
  return { files, address: address ?? null };
}

/**
 * Bring a picture from its address.
 * @param {string} address
 * @returns {Promise<Named>}
 */
export async function brought(address) {
  const answer = await fetch(address).catch((problem) => {
    if (problem instanceof TypeError) return null; // another site, which does not lend its pictures
    throw problem;
  });
  const file = answer?.ok ? await answer.blob() : null;
  if (!file?.type.startsWith("image/")) {
    throw new Refused(t("That picture cannot be read from here. Save it as a file first, then drop the file."));
  }
  const url = new URL(address, location.href);
  const name = url.searchParams.get("filename") ?? url.pathname.split("/").pop() ?? "";
  return { file, name: PICTURE.test(name) ? name : `picture.${file.type.split("/")[1]}` };
}
