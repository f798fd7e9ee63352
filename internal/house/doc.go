// Package house tests the repository's own rules: import directions, package and exported
// comments, file sizes. It has no code for others, and does not build the product.
package house
